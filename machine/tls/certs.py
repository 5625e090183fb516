"""TLS certificates: one CA and one client per store, one server per machine, all ECDSA P-256.

Lifetimes: the CA 10 years, because a new CA changes every machine; the others 820 days, because Apple's TLS refuses
server certificates of more than 825. `start` renews them long before, without the user.
A user's own CA or client is taken from MACHINE_TLS_CA_CERT, MACHINE_TLS_CA_KEY, MACHINE_TLS_CLIENT_CERT and
MACHINE_TLS_CLIENT_KEY when the store has none yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from machine import files, paths
from machine.errors import CheckFailed, MachineError, Usage
from machine.paths import MachineFolder
from machine.tls.lifetimes import RENEW_DAYS, WARN_DAYS

if typing.TYPE_CHECKING:
    from filelock import BaseFileLock

    from machine.tls.x509 import Pair

LOCK_TIMEOUT = 60.0
# SEQUENCE of two times, each a UTCTime or a GeneralizedTime; the second is the end.
_TIME = rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)"
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22]" + _TIME + rb"(?:\x17\x0d(\d{12}Z)|\x18\x0f(\d{14}Z))", re.DOTALL)
_OWN = {
    "ca": ("MACHINE_TLS_CA_CERT", "MACHINE_TLS_CA_KEY"),
    "client": ("MACHINE_TLS_CLIENT_CERT", "MACHINE_TLS_CLIENT_KEY"),
}


def issue_server(ca_folder: Path, folder: MachineFolder, *, names: Sequence[str], addresses: Sequence[str]) -> None:
    """Write a new server certificate for the machine, and the client's files, into its folder.

    It is valid for the machine's name, localhost, names and addresses (either may hold DNS names and IP addresses).
    Missing CA and client certificates are made; several processes may do that at once. Raises Usage for a name that is
    neither DNS name nor IP address, CheckFailed when the user's own certificate can't be used, MachineError when one in
    ca_folder can't be used.
    """
    from machine.tls import x509

    wanted = _subject_names(folder, names, addresses)
    with _lock(ca_folder):
        _ensure(ca_folder)
        _issue_server(x509.load(ca_folder / "ca.pem", ca_folder / "ca-key.pem"), folder, wanted)
        _copy_client(ca_folder, folder)


def renew_if_due(
    ca_folder: Path, folder: MachineFolder, *, names: Sequence[str], addresses: Sequence[str], days: int = RENEW_DAYS
) -> bool:
    """Issue a new server certificate if the present one is damaged, ends within days, is for other names, or is of
    another CA. Copy the store's client files into its folder. True when there is a new server certificate.
    """
    from machine.tls import x509

    wanted = _subject_names(folder, names, addresses)
    with _lock(ca_folder):
        _ensure(ca_folder)
        ca = x509.load(ca_folder / "ca.pem", ca_folder / "ca-key.pem")
        fits = x509.fits(folder.server_cert, folder.server_key, ca, within=timedelta(days=days), names=wanted)
        if not fits:
            _issue_server(ca, folder, wanted)
        _copy_client(ca_folder, folder)
    return not fits


def share_client(ca_folder: Path, folder: MachineFolder) -> None:
    """Copy the CA and the client's files into its folder, for a daemon that has its own certificate."""
    with _lock(ca_folder):
        _ensure(ca_folder)
        _copy_client(ca_folder, folder)


def regenerate(ca_folder: Path, *, ca: bool = False) -> None:
    """Make a new client certificate, and before it, when ca is true, a new CA.

    After a new CA every machine needs issue_server; after a new client, renew_if_due brings it to the machines.
    """
    with _lock(ca_folder):
        for name in ("ca.pem", "cert.pem") if ca else ("cert.pem",):
            (ca_folder / name).unlink(missing_ok=True)
        _ensure(ca_folder)


def expiry(path: Path) -> datetime:
    """When the certificate ends, in UTC. Raises MachineError when the file holds none."""
    from machine.tls import x509

    return x509.read(path).not_valid_after_utc


def ends(path: Path) -> datetime | None:
    """As `expiry`, in one millisecond instead of 40, for `machine ls`; None for an invalid file.

    Only in a certificate's validity do two times follow each other (RFC 5280, 4.1.2.5).
    """
    import binascii

    try:
        lines = path.read_text(encoding="ascii").partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]
        found = _VALIDITY.search(binascii.a2b_base64(lines))
        form, text = (
            ("%y%m%d%H%M%SZ", found[1]) if found and found[1] else ("%Y%m%d%H%M%SZ", found[2] if found else b"")
        )
        return datetime.strptime(text.decode(), form).replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Expiry:
    """The certificate of a machine that ends first. days: until then, negative when it has ended.

    only_machine: whether no other machine uses it. command: renews it.
    """

    file: str
    days: int
    only_machine: bool
    command: str

    def __str__(self) -> str:
        return f"the certificate {self.file} {f'expires in {self.days} days' if self.days >= 0 else 'has expired'}"


def expires_soon(folder: MachineFolder) -> Expiry | None:
    """The first certificate that ends within WARN_DAYS, None when all last longer."""
    found = [(end, path) for path in (folder.server_cert, folder.cert, folder.ca) if (end := ends(path))]
    if not found:
        return None
    end, path = min(found)
    days = (end - datetime.now(UTC)).days
    if days >= WARN_DAYS:
        return None
    words = {folder.server_cert: folder.name, folder.cert: f"--client-certs {folder.name}", folder.ca: "--ca"}[path]
    return Expiry(path.name, days, path == folder.server_cert, f"machine regenerate-certs {words}")


def _ensure(folder: Path) -> None:
    from machine.tls import x509

    _take_own("ca", folder / "ca.pem", folder / "ca-key.pem")
    _take_own("client", folder / "cert.pem", folder / "key.pem")
    # The key is written first, so a certificate always has its key.
    if not (folder / "ca.pem").exists():
        import secrets  # 4 ms, and `ls` only looks when certificates end

        # Each CA has its own name. With equal names, a verifier reports a bad signature instead of an unknown issuer.
        _save(folder / "ca.pem", folder / "ca-key.pem", x509.new_ca(f"machine CA {secrets.token_hex(4)}"))
    ca = x509.load(folder / "ca.pem", folder / "ca-key.pem")
    # The user's own client certificate is used as it is: another CA may have signed it, and we can't renew it.
    own = bool(os.environ.get(_OWN["client"][0]))
    if not own and not x509.fits(folder / "cert.pem", folder / "key.pem", ca, within=timedelta(days=RENEW_DAYS)):
        _save(folder / "cert.pem", folder / "key.pem", x509.issue(ca, "machine client", usage="client"))


def _take_own(what: str, cert: Path, key: Path) -> None:
    """Copy the user's own certificate into the store; an existing one is never replaced."""
    from machine.tls import x509

    variables = _OWN[what]
    given = [os.environ.get(variable, "") for variable in variables]
    if not any(given):
        return
    if not all(given):
        raise CheckFailed(f"{variables[0]} and {variables[1]} must be set together", hint="set both, or neither")
    sources = [paths.expanded(path) for path in given]
    try:
        x509.load(*sources)
    except MachineError as error:
        raise CheckFailed(error.message, hint=f"check the files that {variables[0]} and {variables[1]} name") from error
    if not cert.exists():
        files.write(key, sources[1].read_bytes())
        files.write(cert, sources[0].read_bytes(), 0o644)
    elif cert.read_bytes() != sources[0].read_bytes():
        raise CheckFailed(
            f"{variables[0]} names another certificate than the store has ({cert})",
            hint="use another store for it (MACHINE_STORAGE_PATH), or unset the variable",
        )


def _issue_server(ca: Pair, folder: MachineFolder, names: Sequence[str]) -> None:
    from machine.tls import x509

    _save(folder.server_cert, folder.server_key, x509.issue(ca, folder.name, usage="server", names=names))


def _save(cert: Path, key: Path, pair: Pair) -> None:
    # A crash between the two writes leaves files that don't fit each other; `x509.fits` detects that.
    files.write(key, pair.key_pem())
    files.write(cert, pair.cert_pem(), 0o644)


def _copy_client(ca_folder: Path, folder: MachineFolder) -> None:
    for source, target, mode in (
        (ca_folder / "ca.pem", folder.ca, 0o644),
        (ca_folder / "key.pem", folder.key, 0o600),
        (ca_folder / "cert.pem", folder.cert, 0o644),
    ):
        data = source.read_bytes()
        if not target.exists() or target.read_bytes() != data:
            files.write(target, data, mode)


def _subject_names(folder: MachineFolder, names: Sequence[str], addresses: Sequence[str]) -> list[str]:
    from machine.tls import x509

    wanted = list(dict.fromkeys([folder.name, "localhost", *names, *addresses]))
    for name in wanted:
        try:
            x509.general_name(name)
        except ValueError as error:
            raise Usage(
                f"invalid name for a certificate: {name!r}",
                hint="give a DNS name or an IP address: --tls-san docker.test",
            ) from error
    return wanted


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[BaseFileLock]:
    from filelock import FileLock, Timeout  # 33 ms

    files.make_folder(folder)
    try:
        with FileLock(folder / "lock", timeout=LOCK_TIMEOUT, mode=0o600) as lock:
            yield lock
    except Timeout as error:
        raise MachineError(
            f"another machine command holds {folder / 'lock'}", hint="wait for it to end, then try again"
        ) from error
