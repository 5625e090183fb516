"""Setting Docker up on a machine: what every system must offer, and what distributions of Linux have in common.

What differs between them is in `distributions` and `init_systems`; machineos is in `machineos_provisioner`.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from machine.docker import daemon, daemon_json, refusal
from machine.errors import EngineRefused, MachineError, ToolFailed
from machine.guest import host_settings
from machine.reasons import reason
from machine.spec import DOCKER_PORT
from machine.ssh.remote import Remote

if TYPE_CHECKING:
    from machine.driver import Driver
    from machine.guest.steps import Steps


class Provisioner(ABC):
    """ids: what /etc/os-release calls the system. service: how it runs dockerd."""

    ids: ClassVar[frozenset[str]]
    service: ClassVar[daemon.Service]

    def __init__(self, driver: Driver, remote: Remote) -> None:
        self.machine = driver.machine
        self.folder = driver.folder
        self.driver = driver
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

    @abstractmethod
    def engine_files(self) -> dict[str, str]:
        """What the files with dockerd's settings are to hold, by their paths; daemon.json is among them."""

    @abstractmethod
    def took_settings(self) -> None:
        """Remember that dockerd runs with the settings of `engine_files`."""

    @abstractmethod
    def settle(self, steps: Steps) -> None:
        """Make the machine's own entries of /etc/hosts and its kernel settings true. Raises MachineError."""


class Distribution(Provisioner):
    """A Linux distribution, with Docker from its own packages.

    install: the commands that bring Docker; renew: those that bring its newest version.
    """

    install: ClassVar[tuple[tuple[str, ...], ...]]
    renew: ClassVar[tuple[tuple[str, ...], ...]]
    INSTALL_TIMEOUT: ClassVar[float] = 900
    _TLS = "/etc/docker/tls"
    _CONFIG = daemon.CONFIG
    # The digest of the settings that Docker was started with last.
    _APPLIED = "/var/lib/machine/applied"
    # What of daemon.json is from us, so that it goes again when it isn't asked for any more.
    _OURS = "/var/lib/machine/engine.json"
    service_file: ClassVar[str]

    def provision(self, steps: Steps) -> None:
        if not self._has("dockerd"):
            with steps.step("installing Docker"):
                self._install()
                steps.did("installed Docker")
        with steps.step("writing Docker's settings"):
            self._send_tls(steps)
            for path, text in self.engine_files().items():
                self.put(path, text, steps)
            self._remember_ours()
            self.enable(steps)
        with steps.step("starting Docker"):
            if self.remote.read(self._APPLIED) != self._digest() or not self.is_running():
                self._apply()
                steps.did("started Docker with these settings")
        with steps.step("allowing the user and Docker's port"):
            self._join_group(steps)
            self._open_port(steps)
        self.settle(steps)

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

    def took_settings(self) -> None:
        self._remember_ours()
        self.remote.write(self._APPLIED, self._digest())

    def _remember_ours(self) -> None:
        if self.remote.read(self._OURS) != (ours := daemon_json.content(self.machine)):
            self.remote.write(self._OURS, ours)

    def settle(self, steps: Steps) -> None:
        host_settings.settle(self.remote, self.machine, steps)

    def _digest(self) -> str:
        """Of all settings: a run that broke off before Docker was started with them shows so."""
        paths = [
            *(f"{self._TLS}/{name}.pem" for name in ("ca", "server", "server-key")),
            self._CONFIG,
            self.service_file,
        ]
        return self.remote.run(["sh", "-c", 'cat "$@" 2>/dev/null | sha256sum', "sh", *paths]).stdout

    @abstractmethod
    def service_text(self) -> str:
        """What makes the service read daemon.json only, and has the daemon's environment, for service_file."""

    @abstractmethod
    def enable(self, steps: Steps) -> None:
        """Let the service start at boot."""

    @abstractmethod
    def is_running(self) -> bool: ...

    @abstractmethod
    def restart(self) -> None: ...

    def begin(self, command: Sequence[str]) -> None:
        """Start the service. Raises EngineRefused with dockerd's words when it wrote why it doesn't start."""
        mark = self.remote.run(["sh", "-c", self.service.mark]).stdout.strip()
        try:
            self.remote.run(command, timeout=120)
        except ToolFailed as error:
            log = self.remote.run(["sh", "-c", self.service.log, "sh", mark], check=False).stdout
            if words := refusal.fatal(log):
                raise EngineRefused(words, details=error.details) from error
            raise

    def put(self, path: str, text: str, steps: Steps, mode: int = 0o644) -> bool:
        """Write the file if it isn't so already; True when it was changed."""
        if self.remote.read(path) == text:
            return False
        self.remote.write(path, text, mode)
        steps.did(f"wrote {path}")
        return True

    def environment(self) -> str:
        # The proxies of this computer need not be right for a host elsewhere.
        return daemon_json.docker_env(self.machine, daemon_json.proxies(os.environ) if self.driver.kind.is_ours else {})

    @property
    def port(self) -> int:
        """Where the daemon listens: what is forwarded to a virtual machine may have another number outside."""
        return DOCKER_PORT if self.driver.kind.is_ours else self.driver.address().docker_port

    def _install(self) -> None:
        if url := str(self.machine.options.get("install_url", "")):
            script = 'if command -v curl >/dev/null; then curl -fsSL "$1"; else wget -qO- "$1"; fi | sh'
            self.remote.run(["sh", "-c", script, "sh", url], timeout=self.INSTALL_TIMEOUT)
        for command in () if url else self.install:
            self.remote.run(command, timeout=self.INSTALL_TIMEOUT)
        if not self._has("dockerd"):
            raise MachineError(
                "Docker was installed, but there is no dockerd",
                hint="install Docker on the host by hand, and repeat the command",
            )

    def _has(self, program: str) -> bool:
        return self.remote.run(["sh", "-c", f"command -v {program}"], check=False).code == 0

    def _send_tls(self, steps: Steps) -> None:
        if not self.machine.tls:
            return
        sources = {"ca": self.folder.ca, "server": self.folder.server_cert, "server-key": self.folder.server_key}
        for name, path in sources.items():
            self.put(f"{self._TLS}/{name}.pem", path.read_text(encoding="utf-8"), steps, 0o600)

    def engine_files(self) -> dict[str, str]:
        return {self._CONFIG: self._daemon_json(), self.service_file: self.service_text()}

    def _daemon_json(self) -> str:
        text = self.remote.read(self._CONFIG) or "{}"
        try:
            present = json.loads(text)
        except ValueError as error:
            raise MachineError(
                f"{self._CONFIG} on the host isn't JSON: {reason(error)}", hint="correct or remove it there"
            ) from error
        ours = json.loads(self.remote.read(self._OURS) or "{}")
        present = _without(present, ours, json.loads(daemon_json.content(self.machine)))
        return json.dumps({**present, **self._wanted(present)}, indent=2) + "\n"

    def _wanted(self, present: dict[str, object]) -> dict[str, object]:
        """What daemon.json must hold; settings of the host that aren't ours stay."""
        wanted: dict[str, object] = json.loads(daemon_json.content(self.machine))
        hosts = ["unix:///var/run/docker.sock", f"tcp://0.0.0.0:{self.port}"]
        wanted |= {"hosts": hosts, "live-restore": wanted.get("live-restore", True), "tlsverify": self.machine.tls}
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


def _without(present: dict[str, object], ours: dict[str, object], wanted: dict[str, object]) -> dict[str, object]:
    """daemon.json without what we once put into it and don't want any more; the host's own settings stay."""
    left: dict[str, object] = {}
    for key, value in present.items():
        mine, still = ours.get(key), wanted.get(key)
        if isinstance(value, list) and isinstance(mine, list):
            wants = still if isinstance(still, list) else []
            if kept := [item for item in value if item not in mine or item in wants]:
                left[key] = kept
        elif key not in ours or key in wanted or value != mine:
            left[key] = value
    return left
