"""The connection to a libvirtd, and its errors in the user's terms.

The module is `libvirt`, as is this package's last name: it is imported where it is used, because it costs 30 ms and is
an extra that not everybody installs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, urlsplit

from machine.errors import CheckFailed, DriverFailed, ToolMissing

if TYPE_CHECKING:
    import libvirt

T = TypeVar("T")
INSTALL_MODULE = "sudo apt install libvirt-dev pkg-config gcc python3-dev && pip install 'machine-vm[libvirt]'"
INSTALL_DAEMON = "sudo apt install libvirt-daemon-system qemu-system-x86 && sudo systemctl start libvirtd"
JOIN_GROUP = "sudo usermod -aG libvirt $USER, log in again; or without root: --libvirt-uri qemu:///session"


class Uri:
    """qemu:///system, qemu:///session, qemu+ssh://user@host:22/system?keyfile=…"""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = urlsplit(text)
        self.transport = parts.scheme.partition("+")[2]
        self.host = parts.hostname or ""
        self.user = parts.username or ""
        self.port = parts.port
        # Parameters of libvirt's own transport (libvirt.org/uri.html), which our tunnel goes by as well.
        given = parse_qs(parts.query)
        self.keyfile = given.get("keyfile", [""])[0]
        self.command = given.get("command", ["ssh"])[0]
        self.no_verify = given.get("no_verify", ["0"])[0] != "0"
        self.is_session = parts.path == "/session"

    def __str__(self) -> str:
        return self.text

    @property
    def is_remote(self) -> bool:
        return bool(self.host)

    @property
    def over_ssh(self) -> bool:
        return self.is_remote and self.transport in {"ssh", "libssh", "libssh2"}


class Connection:
    """Opened when it is first needed, and again when it was lost.

    raw raises CheckFailed when there is no libvirtd, and ToolMissing without libvirt-python.
    """

    def __init__(self, uri: Uri) -> None:
        self.uri = uri
        self._opened: libvirt.virConnect | None = None

    @property
    def raw(self) -> libvirt.virConnect:
        if self._opened is None or not self._is_alive():
            self._opened = self._open()
        return self._opened

    def _is_alive(self) -> bool:
        import libvirt

        try:
            return self._opened is not None and self._opened.isAlive() == 1
        except libvirt.libvirtError:
            return False

    def _open(self) -> libvirt.virConnect:
        require_module()
        import libvirt

        # Without a handler of ours the library prints each error on stderr.
        libvirt.registerErrorHandler(lambda context, error: None, None)
        try:
            opened = libvirt.open(self.uri.text)
        except libvirt.libvirtError as error:
            raise _no_connection(self.uri, str(error)) from error
        # A server that went away is noticed after 15 s; local sockets need no such thing, and test:/// has none.
        with contextlib.suppress(libvirt.libvirtError):
            if self.uri.is_remote:
                opened.setKeepAlive(5, 3)
        return opened

    def domain(self, uuid: str) -> libvirt.virDomain | None:
        """The domain, None when there is none of that UUID."""
        return find(f"can't look up the domains on {self.uri}", lambda: self.raw.lookupByUUIDString(uuid), "NO_DOMAIN")


def require_module() -> None:
    """Raise ToolMissing without libvirt-python."""
    try:
        import libvirt  # noqa: F401
    except ImportError as error:
        raise ToolMissing("libvirt-python", hint=INSTALL_MODULE) from error


@contextlib.contextmanager
def explained(what: str, *, hint: str = "") -> Iterator[None]:
    """Every error of libvirt as a DriverFailed that begins with what wasn't possible. Raises ToolMissing without it."""
    require_module()
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        text = " ".join(str(error).split())
        raise DriverFailed(f"{what}: {text}", hint=hint or _hint(error)) from error


def find(what: str, look_up: Callable[[], T], *absent: str) -> T | None:
    """What look_up returns; None when libvirt's error has one of the names that stand for an absent thing.

    Raises DriverFailed, which begins with what, for its other errors.
    """
    with explained(what):
        import libvirt

        try:
            return look_up()
        except libvirt.libvirtError as error:
            if is_error(error, *absent):
                return None
            raise


def is_error(error: Exception, *names: str) -> bool:
    """Whether it is one of libvirt's errors of these names: "NO_NETWORK" for VIR_ERR_NO_NETWORK."""
    import libvirt

    codes = {getattr(libvirt, f"VIR_ERR_{name}") for name in names}
    return isinstance(error, libvirt.libvirtError) and error.get_error_code() in codes


def _hint(error: libvirt.libvirtError) -> str:
    text = str(error)
    if "No space left" in text:
        return "make room in the storage pool, or choose another: --libvirt-pool NAME"
    if "End of file while reading" in text or "client socket is closed" in text or "keepalive" in text:
        return "the connection to libvirtd was lost; check that it runs: sudo systemctl status libvirtd"
    if "is not active" in text and "network" in text:
        return "virsh net-start NAME"
    if "Cannot access storage file" in text:
        return (
            "root's libvirtd runs QEMU as another user, who must reach the storage pool: --libvirt-uri qemu:///system"
        )
    if "authentication" in text or "access denied" in text.lower():
        return JOIN_GROUP
    return ""


def _no_connection(uri: Uri, text: str) -> CheckFailed:
    if "Permission denied" in text or "authentication" in text.lower():
        hint = (
            f"check that this works: ssh {uri.user + '@' if uri.user else ''}{uri.host} true"
            if uri.is_remote
            else JOIN_GROUP
        )
        return CheckFailed(f"no permission to use {uri}", hint=hint, details=text)
    if uri.is_remote:
        return CheckFailed(f"no connection to {uri}", hint=f"virsh -c '{uri}' version", details=text)
    hint = INSTALL_DAEMON.replace("sudo systemctl start libvirtd", "libvirtd -d") if uri.is_session else INSTALL_DAEMON
    return CheckFailed(f"no libvirtd answers on {uri}", hint=hint, details=text)
