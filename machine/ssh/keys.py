"""SSH keys: the user's and the machine's host key, both ed25519 in OpenSSH's format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machine import files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def generate(path: Path, comment: str) -> None:
    """Write a new private key to path (0600) and its public half to path.pub (0644).

    Raises ValueError for a comment of more than one line, which would be a second entry of authorized_keys.
    """
    # 34 ms to import, and only create needs it.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not comment.isprintable():
        raise ValueError(f"not a comment for a key: {comment!r}")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    files.write(path, private)
    files.write(path.with_name(path.name + ".pub"), _public(key, comment), 0o644)


def publish(path: Path, comment: str) -> None:
    """Write the public half of a private key that somebody else brought.

    Raises OSError, and ValueError when it is no ed25519 key, or needs a password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # one that needs a password, or is of no kind known
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it isn't ed25519")
    files.write(path.with_name(path.name + ".pub"), _public(key, comment), 0o644)


def _public(key: Ed25519PrivateKey, comment: str) -> str:
    from cryptography.hazmat.primitives import serialization

    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} {comment}".rstrip() + "\n"


def known_hosts_line(host: str, port: int, public_key_text: str) -> str:
    """The line of a known_hosts file that pins a host's public key, without its end (sshd(8), SSH_KNOWN_HOSTS)."""
    kind, key = public_key_text.split()[:2]
    place = host if port == 22 else f"[{host}]:{port}"
    return f"{place} {kind} {key}"
