"""What can be found out before anything is made."""

from __future__ import annotations

import os
import sys

from machine import filesystem, links, packages
from machine.errors import CheckFailed, ToolMissing
from machine.paths import Image
from machine.resources import human
from machine.run import which

from . import forwards
from .place import Place

# What a machine takes besides its image when it is new.
NEW_MIB = 64


def check(place: Place) -> list[str]:
    """Raise CheckFailed when the machine can't be made; return notes for the user."""
    uri = place.uri
    if sys.platform == "win32":
        raise CheckFailed("libvirt isn't available on Windows", hint="use VirtualBox: --driver virtualbox")
    if uri.is_session and uri.is_remote:
        raise CheckFailed(
            f"a session on another host can't be reached: {uri}",
            hint="use the system's libvirtd: --libvirt-uri qemu+ssh://HOST/system",
        )
    _check_words(place)
    if uri.over_ssh:
        _check_tunnel(place)
    if uri.is_remote:
        _check_memory(place)
    _check_room(place)
    return place.chosen().notes


def _check_words(place: Place) -> None:
    try:
        str(place.folder.path).encode()
    except UnicodeEncodeError as error:
        raise CheckFailed(
            "libvirt can use only a store whose path is UTF-8",
            hint="export MACHINE_STORAGE_PATH=/var/tmp/machine",
        ) from error


def _check_room(place: Place) -> None:
    free, image = place.pool.free_mib(), Image(place.machine.image)
    needed = (image.file.stat().st_size >> 20) + NEW_MIB if image.file.exists() else NEW_MIB
    if free is not None and free < needed:
        raise CheckFailed(
            f"only {free} MiB are free in the storage pool {place.pool.name}, {needed} are needed",
            hint="make room, or choose another: --libvirt-pool NAME",
        )


def _check_memory(place: Place) -> None:
    has = int(place.connection.raw.getInfo()[1])
    if place.machine.memory_mib > has:
        raise CheckFailed(
            f"the machine asks for {human(place.machine.memory_mib)} of memory, but {place.uri.host} has {human(has)}",
            hint="use less memory: --memory 2G",
        )


def _check_tunnel(place: Place) -> None:
    command = place.uri.command
    if which(command) is None:
        raise ToolMissing(command, hint=packages.hint("ssh"))
    filesystem.check_sockets(place.folder.store)
    if len(os.fsencode(place.folder / forwards.CONTROL)) > links.SOCKET_ROOM - forwards.SUFFIX:
        raise CheckFailed(
            f"the path of the store is too long for a socket: {place.folder.path}",
            hint="export MACHINE_STORAGE_PATH=/tmp/machine",
        )
