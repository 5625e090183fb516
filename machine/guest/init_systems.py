"""Starting and stopping dockerd on distributions: by systemd, by OpenRC."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, ClassVar

from machine.docker import daemon
from machine.guest.provisioners import Distribution

if TYPE_CHECKING:
    from machine.guest.steps import Steps


class Systemd(Distribution):
    service: ClassVar[daemon.Service] = daemon.SYSTEMD
    service_file = "/etc/systemd/system/docker.service.d/machine.conf"

    def service_text(self) -> str:
        dockerd = self.remote.run(["sh", "-c", "command -v dockerd"]).stdout.strip()
        # Distributions pass -H on the command line, which daemon.json must not contradict: an empty ExecStart drops it.
        lines = ["[Service]", "ExecStart=", f"ExecStart={dockerd}"]
        lines += [f'Environment="{_systemd(line)}"' for line in self.environment().splitlines()]
        return "\n".join(lines) + "\n"

    def enable(self, steps: Steps) -> None:
        if self.remote.run(["systemctl", "is-enabled", "-q", "docker"], check=False).code != 0:
            self.remote.run(["systemctl", "enable", "-q", "docker"])
            steps.did("let Docker start at boot")

    def is_running(self) -> bool:
        return self.remote.run(["systemctl", "is-active", "-q", "docker"], check=False).code == 0

    def restart(self) -> None:
        self.remote.run(["systemctl", "daemon-reload"])
        self.begin(["systemctl", "restart", "docker"])


class OpenRc(Distribution):
    service: ClassVar[daemon.Service] = daemon.OPENRC
    service_file = "/etc/conf.d/docker"
    _BEGIN, _END = "# machine: begin", "# machine: end"

    def service_text(self) -> str:
        present = self.remote.read(self.service_file) or ""
        before, begin, rest = present.partition(f"{self._BEGIN}\n")
        after = rest.partition(f"{self._END}\n")[2] if begin else ""
        lines = [f"export {_shell(line)}\n" for line in self.environment().splitlines()]
        block = "".join([f"{self._BEGIN}\n", 'DOCKER_OPTS=""\n', *lines, f"{self._END}\n"])
        return f"{before}{block}{after}"

    def enable(self, steps: Steps) -> None:
        if "docker |" not in self.remote.run(["rc-update", "show", "default"]).stdout:
            self.remote.run(["rc-update", "add", "docker", "default"])
            steps.did("let Docker start at boot")

    def is_running(self) -> bool:
        return self.remote.run(["rc-service", "-q", "docker", "status"], check=False).code == 0

    def restart(self) -> None:
        self.begin(["rc-service", "docker", "restart"])


def _systemd(text: str) -> str:
    """Inside double quotes of a unit file, where % begins a specifier (systemd.exec(5), Environment=)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _shell(line: str) -> str:
    key, _, value = line.partition("=")
    return f"{key}={shlex.quote(value)}"
