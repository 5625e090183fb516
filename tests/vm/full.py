"""How much is tested: make test-full runs what is marked slow, too, and moves 1 GiB where 64 MiB show the same."""

from __future__ import annotations

import os

FULL = os.environ.get("MACHINE_TEST_FULL") == "1"
DATA_MIB = 1024 if FULL else 64
