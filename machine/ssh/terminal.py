"""The terminal in raw mode, so that each key goes to the machine as it is pressed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


def size() -> os.terminal_size:
    """Columns and lines; 80 by 24 when there is no terminal. COLUMNS isn't asked: it doesn't follow the window."""
    with contextlib.suppress(OSError):
        return os.get_terminal_size(1)
    return os.terminal_size((80, 24))


if sys.platform == "win32":
    # Microsoft's "Console modes": raw input with keys as escape sequences, and output that understands these.
    _STDIN, _STDOUT = -10, -11
    _INPUT_MODE = 0x0200
    _OUTPUT_MODE = 0x0001 | 0x0004

    @contextlib.contextmanager
    def raw() -> Iterator[None]:
        """Nothing when there is no terminal."""
        import ctypes

        kernel = ctypes.windll.kernel32
        changed = []
        for number, mode in ((_STDIN, _INPUT_MODE), (_STDOUT, _OUTPUT_MODE)):
            handle, before = kernel.GetStdHandle(number), ctypes.c_uint32()
            if kernel.GetConsoleMode(handle, ctypes.byref(before)):
                changed.append((handle, before))
                kernel.SetConsoleMode(handle, mode)
        try:
            yield
        finally:
            for handle, before in changed:
                kernel.SetConsoleMode(handle, before)

else:
    import termios
    import tty

    @contextlib.contextmanager
    def raw() -> Iterator[None]:
        """Nothing when there is no terminal."""
        try:
            before = termios.tcgetattr(0)
        except termios.error:
            yield
            return
        try:
            # DRAIN: the default, FLUSH, would throw away what was typed while we connected.
            tty.setraw(0, termios.TCSADRAIN)
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
