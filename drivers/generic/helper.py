"""The helper process of a host that has folders of this computer.

It keeps them mounted there, until the machine has none any more, or is removed.
"""

from __future__ import annotations

import os
from pathlib import Path

from machine import helper, store
from machine.errors import MachineError, NoSuchMachine
from machine.folders import over_ssh
from machine.paths import MachineFolder
from machine.run import run

from .driver import Generic


def main(path: str) -> None:
    folder = MachineFolder(Path(path))
    with helper.alone(folder) as held:
        if held:
            machine = store.read(folder)
            address = Generic(machine, folder, run).address
            # What the host has at that place is its user's, and may be in use.
            over_ssh.Sharing(folder, address, machine.ssh_user, lambda: has_folders(folder), may_hide=False).run()
    os._exit(0)  # whatever the threads wait for


def has_folders(folder: MachineFolder) -> bool:
    try:
        return bool(store.read(folder).mounts)
    except NoSuchMachine:
        return False
    except MachineError:  # a record that can't be read is no reason to have the host wait
        return True
