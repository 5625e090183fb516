"""Brings changed folders of this host to a container that runs: python -m machine.drivers.lxc.bring UUID PROCESS.

PROCESS is LXC's own, whose mount namespace `launch` made.
"""

from __future__ import annotations

import sys

from machine.errors import MachineError
from machine.reasons import reason

from . import binds, launch, mounts
from .layout import Layout


def main(name: str, process: str) -> int:
    layout = Layout(name)
    plan = launch.read(layout)
    try:
        mounts.enter(int(process), "mnt")
        binds.bring(layout, plan.binds, plan.first_id)
    except (MachineError, OSError) as error:
        print(reason(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
