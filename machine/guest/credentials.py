"""A machine's identity: its keys, its certificates, and the seed that brings them into the guest.

create makes it, and each start updates it: certificates that are due are renewed, and changed proxies or CAs of the
host reach the guest.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import uuid
from pathlib import Path

from machine import files, paths, settings
from machine.docker import daemon_json
from machine.driver import Driver, Machine
from machine.guest import seed
from machine.paths import MachineFolder
from machine.ssh import client_config, keys
from machine.ssh.remote import Shell
from machine.tls import authorities, certs

NOBODY = str(uuid.UUID(int=0))


def prepare(driver: Driver) -> None:
    """Write keys (once), certificates (when due), known_hosts and the seed into its folder. Raises Usage, OSError."""
    machine, folder, address = driver.machine, driver.folder, driver.address()
    for key, comment in ((folder.ssh_key, f"machine {machine.name}"), (folder.host_key, f"host {machine.name}")):
        if not key.exists():
            keys.generate(key, comment)
    files.write(
        folder.known_hosts, keys.known_hosts_line(address.host, address.ssh_port, public(folder.host_key)) + "\n"
    )
    if machine.tls:
        certify(driver)
    client_config.write(Shell(folder, address, machine.ssh_user))
    seed.write(folder.seed, describe(machine, folder, driver))


def certify(driver: Driver) -> bool:
    """Issue the machine's certificate if it is missing, due, or for another address; True for a new one."""
    machine, host = driver.machine, driver.address().host
    return certs.renew_if_due(
        paths.store() / "certs", driver.folder, names=[machine.name, *machine.tls_sans], addresses=[host]
    )


def anonymous(machine: Machine, path: Path, lan: seed.Lan | None = None) -> None:
    """Write the seed of a template's guest to path: the machine's settings without its identity.

    The keys and certificates in it are made for this purpose and thrown away. lan: see seed.Seed.
    """
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        nobody = MachineFolder(Path(folder) / "template")
        files.make_folder(nobody.path)
        for key in (nobody.ssh_key, nobody.host_key):
            keys.generate(key, "template")
        if machine.tls:
            certs.renew_if_due(Path(folder) / "certs", nobody, names=["template"], addresses=[])
        template = dataclasses.replace(machine, name="template", uuid=NOBODY, hosts=(), sysctls=(), mounts=())
        seed.write(path, describe(template, nobody, lan=lan))


def describe(
    machine: Machine, folder: MachineFolder, driver: Driver | None = None, lan: seed.Lan | None = None
) -> seed.Seed:
    proxies = daemon_json.proxies(os.environ)
    return seed.Seed(
        instance_id=machine.uuid,
        hostname=machine.name,
        user=machine.ssh_user,
        authorized_keys=(public(folder.ssh_key),),
        host_key=folder.host_key.read_text(encoding="utf-8"),
        host_key_public=public(folder.host_key),
        daemon_json=daemon_json.content(machine),
        tls=seed.Tls(
            folder.ca.read_text(encoding="utf-8"),
            folder.server_cert.read_text(encoding="utf-8"),
            folder.server_key.read_text(encoding="utf-8"),
        )
        if machine.tls
        else None,
        docker_env=daemon_json.docker_env(machine, proxies),
        environment=daemon_json.environment(proxies),
        ca_certificates=authorities.extra(),
        interfaces=driver.interfaces() if driver else (),
        lan=driver.lan() if driver else lan,
        hosts=settings.hosts(machine),
        sysctls=settings.sysctls(machine),
        mounts=driver.mounts() if driver else (),
    )


def public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text(encoding="utf-8").strip()
