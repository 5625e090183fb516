"""The CAs that this host trusts besides those of its system. A company's proxy may use one to intercept TLS, so the
guest must trust it too. They are read from the folders to which administrators add CAs, and from STORE/ca.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from machine import paths

# Debian and Ubuntu, Fedora and its family, Arch, openSUSE: update-ca-certificates(8), update-ca-trust(8).
FOLDERS = (
    Path("/usr/local/share/ca-certificates"),
    Path("/etc/pki/ca-trust/source/anchors"),
    Path("/etc/ca-certificates/trust-source/anchors"),
    Path("/etc/pki/trust/anchors"),
)
_SUFFIXES = {".crt", ".pem", ".cer"}
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


def extra() -> tuple[tuple[str, str], ...]:
    """(name, PEM) of each CA, in a stable order; a name has letters, digits and dashes only."""
    found: dict[str, str] = {}
    for path, pem in _certificates():
        if pem not in found.values():
            stem = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:40] or "ca"
            number = sum(name.rpartition("-")[0] == stem for name in found)
            found[f"{stem}-{number}"] = pem
    return tuple(found.items())


def _certificates() -> Iterator[tuple[Path, str]]:
    for folder in (*FOLDERS, paths.store() / "ca"):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES:
                continue
            with contextlib.suppress(OSError, UnicodeDecodeError):
                for match in _BLOCK.finditer(path.read_text(encoding="ascii")):
                    if pem := _tidy(match[1]):
                        yield path, pem


def _tidy(body: str) -> str:
    """The certificate with lines of 64 characters (RFC 7468), "" when it isn't base64."""
    try:
        text = binascii.b2a_base64(binascii.a2b_base64("".join(body.split()), strict_mode=True), newline=False).decode()
    except ValueError:
        return ""
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
