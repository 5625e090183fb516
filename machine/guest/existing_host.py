"""Take over an existing host: trust its SSH key, and set up Docker on it."""

from __future__ import annotations

import base64
import hashlib

from machine import files, paths
from machine.errors import DockerFailed, SSHFailed
from machine.guest import credentials, provision
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.progress import Progress
from machine.spec import Address
from machine.ssh import client_config, keys
from machine.tls import certs

TIMEOUT = 10.0
KIND = "ssh-ed25519"


def set_up(instance: Instance, progress: Progress) -> None:
    """Set up SSH, Docker and certificates on the host; changes only what differs. Raises MachineError.

    A daemon that is only known by its URL isn't changed, and need not answer now.
    """
    machine, folder, driver = instance.machine, instance.folder, instance.driver
    if driver.kind.has_ssh:
        if not folder.known_hosts.exists():
            progress.phase("reading the host's key")
            pin(folder, instance.address, driver.host_key(), progress)
        client_config.write(instance.shell())
        if machine.tls:
            credentials.certify(driver)
        for change in provision.provision(instance, progress):
            progress.note(change)
        return
    if machine.tls and not folder.ca.exists():
        certs.share_client(paths.store() / "certs", folder)
    try:
        answers = instance.docker().ping()
    except DockerFailed as error:
        progress.note(error.message)
    else:
        if not answers:
            progress.note(f"nothing answers on {instance.url} now")


def pin(folder: MachineFolder, address: Address, expected: str, progress: Progress) -> None:
    """Write the host's key into known_hosts. expected: the key, its fingerprint, or "" to trust the key that it shows.

    Raises SSHFailed when the host has no such key, or another than the expected one.
    """
    from machine.ssh import native  # it brings paramiko: 98 ms

    key = native.host_key(address, KIND, TIMEOUT)
    if expected and expected not in {key, fingerprint(key)} and expected.split()[:2] != key.split():
        raise SSHFailed(
            f"{address.host} isn't the expected host: the fingerprint of its key is {fingerprint(key)}",
            hint="ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    if not expected:
        progress.note(f"trusting the host's key {fingerprint(key)} unchecked; --generic-host-key checks it")
    files.write(folder.known_hosts, keys.known_hosts_line(address.host, address.ssh_port, key) + "\n")


def fingerprint(key: str) -> str:
    """As ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
