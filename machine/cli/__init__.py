"""The command line: click's, or for the verbs of prompts a quicker one, and the one error boundary."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import NoReturn

from machine.cli.verbs import COMPLETING, PROMPTS
from machine.cli.verbs import VERBS as VERBS
from machine.errors import MachineError

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line. Only this prints errors, and sets the exit code."""
    _end_by_interrupt()
    try:
        _print_anything()
        code = _run()
        if sys.stdout:
            sys.stdout.flush()  # here, and not at exit, where an error is a traceback
    except MachineError as error:
        code = _fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read us (head, grep -q) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # OSError, or a fault of ours: a sentence, and its traceback with --debug
        code = _fail_of_system(error)
    sys.exit(code)


def _run() -> int:
    words = sys.argv[1:]
    if words and words[0] in PROMPTS and COMPLETING not in os.environ:
        from machine.cli import prompt

        if prompt.answered(words):
            return 0
    from machine.cli import command_line  # click takes 20 ms

    return command_line.run()


def _end_by_interrupt() -> None:
    """Handle the signals that end us like Ctrl-C: undo, then end. Ignored signals (nohup, trap '') stay ignored."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _fail(error: MachineError) -> int:
    from machine.cli.report import json_asked, report

    with contextlib.suppress(OSError):  # nobody reads what we say
        report(error, as_json=json_asked())
    return error.exit_code


def _fail_of_system(error: Exception) -> int:
    from machine.cli.report import explained

    return _fail(explained(error))


def _print_anything() -> None:
    """Print characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
