"""The channel on which a template's guest waits to be told that it is a clone now."""

from __future__ import annotations

import socket
import threading
import time

from machine.errors import DriverFailed
from machine.paths import MachineFolder
from machine.reasons import reason

from . import sockets
from .argv import RESUME
from .vm import Vm

# Seconds for each answer of the guest.
TIMEOUT = 30.0


class GuestRefused(DriverFailed):
    """The guest answered, and said why it can't become a machine of its own."""


def connect(folder: MachineFolder, patience: int = 1) -> socket.socket:
    """Open the channel. patience: how many times longer than usual an answer may take. Raises DriverFailed."""
    short = sockets.reach(folder / RESUME)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(TIMEOUT * patience)
    try:
        channel.connect(str(short))
    except OSError as error:
        channel.close()
        raise DriverFailed(f"QEMU doesn't answer on {RESUME}: {reason(error)}") from error
    return channel


def introduce(vm: Vm, channel: socket.socket, more_mib: int, disk_mib: int) -> None:
    """Tell the guest that it is a machine of its own now; it takes its identity from the seed, and answers.

    more_mib: the memory that is being plugged in, for which the guest sets its limits; older images take no notice.
    disk_mib: how large the disk of its template was. Raises GuestRefused, and DriverFailed when it says nothing.
    """
    larger = "yes" if vm.machine.disk_mib > disk_mib else "no"
    with channel.makefile("rb") as lines:
        try:
            channel.sendall(f"resume {time.time():.0f} {vm.machine.mac} {larger} {more_mib}\n".encode())
            # Its clock is right to the second; a moment earlier, and the exact time would be overwritten.
            if (answer := lines.readline()) == b"dated\n":
                clock = threading.Thread(target=vm.set_clock)
                clock.start()
                try:
                    answer = lines.readline()
                finally:
                    clock.join()
        except OSError as error:
            raise DriverFailed(f"the guest of the clone didn't apply its identity: {reason(error)}") from error
    if answer.strip() != b"resumed":
        said = answer.decode(errors="replace").strip()
        kind = GuestRefused if said else DriverFailed
        raise kind(f"the guest of the clone didn't apply its identity: {said or 'it went away'}")
