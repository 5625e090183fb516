"""SSH keys: the user's and the machine's host key, both ed25519 in OpenSSH's format."""

from __future__ import annotations

from pathlib import Path

from machine import files


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
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    files.write(path, private)
    files.write(path.with_name(path.name + ".pub"), f"{public.decode()} {comment}".rstrip() + "\n", 0o644)


def known_hosts_line(host: str, port: int, public_key_text: str) -> str:
    """The line of a known_hosts file that pins a host's public key, without its end (sshd(8), SSH_KNOWN_HOSTS)."""
    kind, key = public_key_text.split()[:2]
    place = host if port == 22 else f"[{host}]:{port}"
    return f"{place} {kind} {key}"
