"""The helper process of a running machine: python -m machine.drivers.lxc FOLDER."""

import sys

from .helper import main

if __name__ == "__main__":
    main(sys.argv[1])
