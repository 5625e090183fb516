"""The helper process of a running machine: python -m machine.drivers.virtualbox HOME."""

import sys

from .ports import main

if __name__ == "__main__":
    main(sys.argv[1])
