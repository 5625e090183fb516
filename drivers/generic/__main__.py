"""The helper process of a host with folders of this computer: python -m machine.drivers.generic HOME."""

import sys

from .helper import main

if __name__ == "__main__":
    main(sys.argv[1])
