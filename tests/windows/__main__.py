"""python -m tests.windows [ARGUMENT...]: run python.exe with these arguments in the rig, which is made if need be."""

from __future__ import annotations

import os
import sys

from tests.windows import rigs
from tests.windows.rig import Amiss, why_not

DEADLINE = 3600.0


def main(words: list[str]) -> int:
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 2
    steering = {name: value for name, value in os.environ.items() if name.startswith(("MACHINE_", "VBOX_", "DOCKER_"))}
    try:
        with rigs.used(**steering) as rig:
            if not words:
                return 0
            ended = rig.python(*words, code=None, timeout=DEADLINE)
    except Amiss as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.write(ended.out)
    sys.stderr.write(ended.err)
    return ended.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
