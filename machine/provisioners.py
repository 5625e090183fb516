"""Setting Docker up on a machine: by a seed on machineos, by packages and files on distributions of Linux.

What differs between distributions is in `distributions`.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from abc import ABC, abstractmethod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from machine import engine, probe
from machine.errors import MachineError, Usage
from machine.paths import Home
from machine.reasons import reason
from machine.remote import Remote
from machine.spec import Address, Machine

if TYPE_CHECKING:
    from machine.steps import Steps


PORT = 2375


class Provisioner(ABC):
    """ids: what /etc/os-release calls the system."""

    ids: ClassVar[frozenset[str]]

    def __init__(self, machine: Machine, home: Home, address: Address, remote: Remote) -> None:
        self.machine = machine
        self.home = home
        self.address = address
        self.adopted = probe.driver(machine, home).adopts
        self.remote = remote

    @abstractmethod
    def provision(self, steps: Steps) -> None:
        """Make the machine what was asked for."""

    @abstractmethod
    def send_certificates(self, steps: Steps) -> None:
        """Bring the server's certificate to the machine and into use."""

    @abstractmethod
    def upgrade(self, steps: Steps) -> None:
        """Bring Docker to the newest that the system has."""


class Machineos(Provisioner):
    """It takes a folder of files, as they stand in the seed, and tells its services of what changed."""

    ids = frozenset({"machineos"})
    _APPLY = (
        'umask 077; folder=$(mktemp -d) && tar -x -C "$folder" && /usr/lib/machineos/apply-seed "$folder"; '
        'code=$?; rm -r "$folder"; exit $code'
    )

    def provision(self, steps: Steps) -> None:
        from machine import identity, seed

        driver = probe.driver(self.machine, self.home)
        with steps.step("bringing the machine in line with its settings"):
            before = seed.read(self.home.seed) if self.home.seed.exists() else {}
            identity.prepare(self.machine, self.home, driver)
            files = seed.read(self.home.seed)
            self._apply(files)
            for name in sorted(name for name in before.keys() | files.keys() if before.get(name) != files.get(name)):
                if name.startswith("machineos/"):
                    steps.did(f"sent another {name.removeprefix('machineos/')}")

    def send_certificates(self, steps: Steps) -> None:
        from machine import seed

        # What it has now, and the new certificate: nothing else must change under running containers.
        files = seed.read(self.home.seed)
        for name, path in (
            ("ca", self.home.ca),
            ("server", self.home.server_cert),
            ("server-key", self.home.server_key),
        ):
            files[f"machineos/tls/{name}.pem"] = path.read_text(encoding="utf-8")
        self._apply(files)

    def upgrade(self, steps: Steps) -> None:
        raise Usage("machineos is upgraded as a whole", hint="build a new one: machine iso build")

    def _apply(self, files: dict[str, str]) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, text in files.items():
                path = PurePosixPath(name)
                if path.parts[0] == "machineos":
                    entry = tarfile.TarInfo(str(path.relative_to("machineos")))
                    entry.size, entry.mode = len(text.encode()), 0o600
                    archive.addfile(entry, io.BytesIO(text.encode()))
        self.remote.run(["sh", "-c", self._APPLY], input=packed.getvalue())


class Distribution(Provisioner):
    """A Linux distribution, with Docker from its own packages.

    install: the commands that bring Docker; renew: those that bring its newest version.
    """

    install: ClassVar[tuple[tuple[str, ...], ...]]
    renew: ClassVar[tuple[tuple[str, ...], ...]]
    INSTALL_TIMEOUT: ClassVar[float] = 900
    _TLS = "/etc/docker/tls"
    _CONFIG = "/etc/docker/daemon.json"
    # The digest of the settings that Docker was started with last.
    _APPLIED = "/var/lib/machine/applied"
    service_file: ClassVar[str]

    def provision(self, steps: Steps) -> None:
        if not self._has("dockerd"):
            with steps.step("installing Docker"):
                self._install()
                steps.did("installed Docker")
        with steps.step("writing Docker's settings"):
            self._send_tls(steps)
            self._configure(steps)
            self.write_service(steps)
        with steps.step("starting Docker"):
            if self.remote.read(self._APPLIED) != self._digest() or not self.is_running():
                self._apply()
                steps.did("started Docker with these settings")
        with steps.step("letting the user and Docker's port through"):
            self._join_group(steps)
            self._open_port(steps)

    def send_certificates(self, steps: Steps) -> None:
        if self._TLS not in (self.remote.read(self._CONFIG) or ""):
            # Set up by somebody else: the daemon doesn't look where we put them.
            self.provision(steps)
            return
        self._send_tls(steps)
        if self.remote.read(self._APPLIED) != self._digest():
            self._apply()

    def upgrade(self, steps: Steps) -> None:
        with steps.step("upgrading Docker"):
            before = self._version()
            for command in self.renew:
                self.remote.run(command, timeout=self.INSTALL_TIMEOUT)
            if (after := self._version()) != before:
                steps.did(f"Docker {before} -> {after}")
                self.restart()

    def _version(self) -> str:
        """`dockerd --version` prints "Docker version 20.10.24+dfsg1, build 297e128"."""
        return self.remote.run(["dockerd", "--version"]).stdout.partition("version ")[2].partition(",")[0].strip()

    def _apply(self) -> None:
        # live-restore, in daemon.json, keeps containers running while the daemon isn't.
        self.restart()
        self.remote.write(self._APPLIED, self._digest())

    def _digest(self) -> str:
        """Of all settings: a run that broke off before Docker was started with them shows so."""
        paths = [
            *(f"{self._TLS}/{name}.pem" for name in ("ca", "server", "server-key")),
            self._CONFIG,
            self.service_file,
        ]
        return self.remote.run(["sh", "-c", 'cat "$@" 2>/dev/null | sha256sum', "sh", *paths]).stdout

    @abstractmethod
    def write_service(self, steps: Steps) -> None:
        """Make the service read daemon.json only, and start it at boot."""

    @abstractmethod
    def is_running(self) -> bool: ...

    @abstractmethod
    def restart(self) -> None: ...

    def put(self, path: str, text: str, steps: Steps, mode: int = 0o644) -> bool:
        """Write the file if it isn't so already; True when it was changed."""
        if self.remote.read(path) == text:
            return False
        self.remote.write(path, text, mode)
        steps.did(f"wrote {path}")
        return True

    def environment(self) -> str:
        # The proxies of this computer need not be right for a host elsewhere.
        return engine.docker_env(self.machine, {} if self.adopted else engine.proxies(os.environ))

    @property
    def port(self) -> int:
        """Where the daemon listens: what is forwarded to a virtual machine may have another number outside."""
        return self.address.docker_port if self.adopted else PORT

    def _install(self) -> None:
        if url := str(self.machine.options.get("install_url", "")):
            script = 'if command -v curl >/dev/null; then curl -fsSL "$1"; else wget -qO- "$1"; fi | sh'
            self.remote.run(["sh", "-c", script, "sh", url], timeout=self.INSTALL_TIMEOUT)
        for command in () if url else self.install:
            self.remote.run(command, timeout=self.INSTALL_TIMEOUT)
        if not self._has("dockerd"):
            raise MachineError("there is still no dockerd", hint="install Docker on the host by hand, and run it again")

    def _has(self, program: str) -> bool:
        return self.remote.run(["sh", "-c", f"command -v {program}"], check=False).code == 0

    def _send_tls(self, steps: Steps) -> None:
        if not self.machine.tls:
            return
        sources = {"ca": self.home.ca, "server": self.home.server_cert, "server-key": self.home.server_key}
        for name, path in sources.items():
            self.put(f"{self._TLS}/{name}.pem", path.read_text(encoding="utf-8"), steps, 0o600)

    def _configure(self, steps: Steps) -> None:
        text = self.remote.read(self._CONFIG) or "{}"
        try:
            present = json.loads(text)
        except ValueError as error:
            raise MachineError(
                f"{self._CONFIG} on the host isn't JSON: {reason(error)}", hint="mend or remove it there"
            ) from error
        self.put(self._CONFIG, json.dumps({**present, **self._wanted(present)}, indent=2) + "\n", steps)

    def _wanted(self, present: dict[str, object]) -> dict[str, object]:
        """What daemon.json must hold; settings of the host that aren't ours stay."""
        wanted: dict[str, object] = json.loads(engine.daemon_json(self.machine))
        hosts = ["unix:///var/run/docker.sock", f"tcp://0.0.0.0:{self.port}"]
        wanted |= {"hosts": hosts, "live-restore": True, "tlsverify": self.machine.tls}
        if self.machine.tls:
            names = {"tlscacert": "ca", "tlscert": "server", "tlskey": "server-key"}
            wanted |= {key: f"{self._TLS}/{name}.pem" for key, name in names.items()}
        for key, value in wanted.items():
            there = present.get(key)
            if isinstance(value, list) and isinstance(there, list) and key != "hosts":
                wanted[key] = [*there, *(item for item in value if item not in there)]
        return wanted

    def _join_group(self, steps: Steps) -> None:
        user = self.machine.ssh_user
        if user != "root" and "docker" not in self.remote.run(["id", "-nG", user]).stdout.split():
            self.remote.run(self.join_group(user))
            steps.did(f"put {user} into the group docker")

    def join_group(self, user: str) -> list[str]:
        return ["usermod", "-aG", "docker", user]

    def _open_port(self, steps: Steps) -> None:
        port = f"{self.port}/tcp"
        if self.remote.run(["firewall-cmd", "--state"], check=False).code == 0:
            if self.remote.run(["firewall-cmd", "--query-port", port], check=False).code != 0:
                for permanent in ([], ["--permanent"]):
                    self.remote.run(["firewall-cmd", *permanent, "--add-port", port])
                steps.did(f"opened {port} in firewalld")
        elif "Status: active" in (ufw := self.remote.run(["ufw", "status"], check=False).stdout) and port not in ufw:
            self.remote.run(["ufw", "allow", port])
            steps.did(f"opened {port} in ufw")


class Systemd(Distribution):
    service_file = "/etc/systemd/system/docker.service.d/machine.conf"

    def write_service(self, steps: Steps) -> None:
        dockerd = self.remote.run(["sh", "-c", "command -v dockerd"]).stdout.strip()
        # Distributions pass -H on the command line, which daemon.json must not contradict: an empty ExecStart drops it.
        lines = ["[Service]", "ExecStart=", f"ExecStart={dockerd}"]
        lines += [f'Environment="{_systemd(line)}"' for line in self.environment().splitlines()]
        self.put(self.service_file, "\n".join(lines) + "\n", steps)
        if self.remote.run(["systemctl", "is-enabled", "-q", "docker"], check=False).code != 0:
            self.remote.run(["systemctl", "enable", "-q", "docker"])
            steps.did("let Docker start at boot")

    def is_running(self) -> bool:
        return self.remote.run(["systemctl", "is-active", "-q", "docker"], check=False).code == 0

    def restart(self) -> None:
        self.remote.run(["systemctl", "daemon-reload"])
        self.remote.run(["systemctl", "restart", "docker"], timeout=120)


class OpenRc(Distribution):
    service_file = "/etc/conf.d/docker"
    _BEGIN, _END = "# machine: begin", "# machine: end"

    def write_service(self, steps: Steps) -> None:
        present = self.remote.read(self.service_file) or ""
        before, begin, rest = present.partition(f"{self._BEGIN}\n")
        after = rest.partition(f"{self._END}\n")[2] if begin else ""
        lines = [f"export {_shell(line)}\n" for line in self.environment().splitlines()]
        block = "".join([f"{self._BEGIN}\n", 'DOCKER_OPTS=""\n', *lines, f"{self._END}\n"])
        self.put(self.service_file, f"{before}{block}{after}", steps)
        if "docker |" not in self.remote.run(["rc-update", "show", "default"]).stdout:
            self.remote.run(["rc-update", "add", "docker", "default"])
            steps.did("let Docker start at boot")

    def is_running(self) -> bool:
        return self.remote.run(["rc-service", "-q", "docker", "status"], check=False).code == 0

    def restart(self) -> None:
        self.remote.run(["rc-service", "docker", "restart"], timeout=120)


def _systemd(text: str) -> str:
    """Inside double quotes of a unit file, where % begins a specifier (systemd.exec(5), Environment=)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _shell(line: str) -> str:
    import shlex

    key, _, value = line.partition("=")
    return f"{key}={shlex.quote(value)}"
