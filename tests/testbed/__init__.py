"""Real machines for tests and benchmarks: stores, hypervisors to make the machines with, and commands on them.

Both import this package, it imports neither, and no pytest. What a place lacks is told by `places.Missing`.
"""

from tests.testbed.commands import BEGAN, Begun, Done, Options, environment, execute, in_terminal, say, until
from tests.testbed.host import free_port, listening, monitor, taken
from tests.testbed.store import ODD, Store

__all__ = [
    "BEGAN",
    "ODD",
    "Begun",
    "Done",
    "Options",
    "Store",
    "environment",
    "execute",
    "free_port",
    "in_terminal",
    "listening",
    "monitor",
    "say",
    "taken",
    "until",
]
