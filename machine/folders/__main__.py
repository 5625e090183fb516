"""python -m machine.folders FOLDER: see server.py."""

import sys

from machine.folders.server import main

if __name__ == "__main__":
    main(*sys.argv[1:])
