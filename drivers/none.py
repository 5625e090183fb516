"""An existing Docker daemon, known only by its URL and certificates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from machine import files, paths
from machine.driver import Driver, Kind, State
from machine.errors import CheckFailed, DriverFailed
from machine.spec import Address

# Docker's own: with TLS, and without.
PORTS = {True: 2376, False: 2375}
_FILES = ("ca", "cert", "key")


@dataclass(frozen=True)
class Options:
    url: str = field(
        default="", metadata={"help": "The URL of the daemon: tcp://HOST:PORT.", "metavar": "URL", "flag": "--url"}
    )
    ca: str = field(
        default="",
        metadata={"help": "The CA of the daemon's certificate. Default: the store's CA.", "metavar": "FILE"},
    )
    cert: str = field(default="", metadata={"help": "The client's certificate.", "metavar": "FILE"})
    key: str = field(default="", metadata={"help": "The client's key.", "metavar": "FILE"})


class UrlOnly(Driver):
    name: ClassVar[str] = "none"
    Options: ClassVar[type] = Options
    loopback: ClassVar[bool] = False
    kind: ClassVar[Kind] = Kind.URL

    def check(self) -> list[str]:
        self._address()
        given = {name: path for name in _FILES if (path := str(self.machine.options.get(name, "")))}
        if given and len(given) < len(_FILES):
            raise CheckFailed("--none-ca, --none-cert and --none-key go together", hint="give all three, or none")
        for path in given.values():
            if not paths.expanded(path).is_file():
                raise CheckFailed(f"there is no file {path}", hint="see --none-ca, --none-cert and --none-key")
        if given and not self.machine.tls:
            raise CheckFailed(
                "--no-tls excludes --none-ca, --none-cert and --none-key", hint="leave out one of the two"
            )
        return []

    def create(self) -> None:
        for name, target in zip(_FILES, (self.folder.ca, self.folder.cert, self.folder.key), strict=True):
            if path := str(self.machine.options.get(name, "")):
                files.write(target, paths.expanded(path).read_bytes(), 0o600 if name == "key" else 0o644)

    def start(self) -> bool:
        return False

    def stop(self) -> None:
        raise DriverFailed("hosts without a driver cannot be stopped")

    def kill(self) -> None:
        raise DriverFailed("hosts without a driver cannot be killed")

    def remove(self) -> None:
        return None

    def state(self) -> State:
        return State.RUNNING

    def address(self) -> Address:
        try:
            return self._address()
        except CheckFailed as error:
            raise DriverFailed(error.message) from error

    def _address(self) -> Address:
        url = str(self.machine.options.get("url", ""))
        try:
            parts = urlsplit(url)
            if parts.hostname and parts.scheme in {"tcp", "http", "https"} and parts.path in {"", "/"}:
                return Address(parts.hostname, parts.port or PORTS[self.machine.tls])
        except ValueError:  # a port that is no number
            pass
        problem = f'invalid URL of a Docker daemon: "{url}"' if url else "--url is required"
        hint = f"machine create --driver none --url tcp://HOST:2376 {self.machine.name}"
        raise CheckFailed(problem, hint=hint)
