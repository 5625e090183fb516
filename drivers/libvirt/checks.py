"""What can be found out before anything is made."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from machine import filesystem, links
from machine.errors import CheckFailed, ToolMissing
from machine.paths import Image
from machine.resources import human
from machine.run import which

from . import forwards, hypervisor

if TYPE_CHECKING:
    from .driver import Libvirt

# What a machine takes besides its image when it is new.
NEW_MIB = 64


def check(driver: Libvirt) -> list[str]:
    """Raise CheckFailed when the machine can't be made; return notes for the user."""
    uri = driver.connection.uri
    if sys.platform == "win32":
        raise CheckFailed("there is no libvirt for Windows", hint="use VirtualBox: --driver virtualbox")
    if uri.is_session and uri.is_remote:
        raise CheckFailed(f"a session on another host can't be reached: {uri}", hint="use its system: …/system")
    _check_words(driver)
    if uri.over_ssh:
        _check_tunnel(driver)
    if uri.is_remote:
        _check_memory(driver)
    _check_room(driver)
    return hypervisor.choose(driver.option("domain_type"), driver.connection, driver.home, driver.run).notes


def _check_words(driver: Libvirt) -> None:
    try:
        str(driver.home.folder).encode()
    except UnicodeEncodeError as error:
        raise CheckFailed(
            "the path of the store isn't UTF-8, which libvirt's XML can't hold",
            hint="export MACHINE_STORAGE_PATH=/var/tmp/machine",
        ) from error


def _check_room(driver: Libvirt) -> None:
    free, image = driver.pool.free_mib(), Image(driver.machine.image)
    needed = (image.file.stat().st_size >> 20) + NEW_MIB if image.file.exists() else NEW_MIB
    if free is not None and free < needed:
        raise CheckFailed(
            f"only {free} MiB are free in the storage pool {driver.pool.name}, {needed} are needed",
            hint="make room, or choose another: --libvirt-pool NAME",
        )


def _check_memory(driver: Libvirt) -> None:
    has = int(driver.connection.raw.getInfo()[1])
    if driver.machine.memory_mib > has:
        raise CheckFailed(
            f"{human(driver.machine.memory_mib)} asked for, but {driver.connection.uri.host} has {human(has)}",
            hint="ask for less: --memory 2G",
        )


def _check_tunnel(driver: Libvirt) -> None:
    command = driver.connection.uri.command
    if which(command) is None:
        raise ToolMissing(command, hint="sudo apt install openssh-client")
    filesystem.check_sockets(driver.home.store)
    if len(os.fsencode(driver.home / forwards.CONTROL)) > links.SOCKET_ROOM - forwards.SUFFIX:
        raise CheckFailed(
            f"the path of the store is too long for a socket: {driver.home.folder}",
            hint="choose a shorter one: MACHINE_STORAGE_PATH=/tmp/machine",
        )
