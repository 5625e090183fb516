"""Variables of this shell that take the machines' authority away from docker's clients in Python.

requests, on which docker-py stands (and with it Ansible, testcontainers, docker-compose 1), lets REQUESTS_CA_BUNDLE
and CURL_CA_BUNDLE win over the CA that it is given for a connection. The docker client and `machine` read neither;
SSL_CERT_FILE and SSL_CERT_DIR change nothing for any of them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from machine.findings import Finding, Level

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def findings(ca: Path) -> Iterator[Finding]:
    """A warning for each variable that names a file without the certificate in ca."""
    for variable in VARIABLES:
        bundle = os.environ.get(variable, "")
        if not bundle or not ca.exists() or _holds(Path(bundle), ca):
            continue
        text = f"{variable} is set: Python clients (docker-py) trust the CAs in {bundle}, not that of the machines"
        both = shlex.quote(str(ca.with_name("bundle.pem")))
        merge = f"cat {shlex.quote(bundle)} {shlex.quote(str(ca))} > {both} && export {variable}={both}"
        yield Finding("client", Level.WARNING, text, f"unset {variable}, or: {merge}")


def _holds(bundle: Path, ca: Path) -> bool:
    try:
        return ca.read_text(encoding="ascii").strip() in bundle.read_text(encoding="utf-8", errors="replace")
    except (OSError, UnicodeDecodeError):
        return False
