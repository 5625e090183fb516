"""How an error looks: one line, its details, and what to do next; or an object for machines."""

from __future__ import annotations

import sys

from machine.errors import MachineError


def report(error: MachineError, *, name: str = "", as_json: bool = False) -> None:
    """Print the error to stderr. name: the machine it happened to, where there are several."""
    from machine import run  # it brings subprocess, which `machine env` does without

    if run.debug:
        import traceback

        traceback.print_exception(error)
    if as_json:
        import json

        found = {"machine": name, "error": error.message, "details": error.details, "hint": error.hint}
        print(json.dumps({**found, "code": error.exit_code}), file=sys.stderr)
        return
    print(f"Error: {name}: {error.message}" if name else f"Error: {error.message}", file=sys.stderr)
    for line in error.details.splitlines():
        print(f"  {line}", file=sys.stderr)
    if error.hint:
        print(f"Next: {error.hint}", file=sys.stderr)


def warn(text: str, hint: str, *, as_json: bool = False) -> None:
    """Print on stderr what isn't this command's own error."""
    if as_json:
        import json

        print(json.dumps({"warning": text, "hint": hint}), file=sys.stderr)
        return
    print(f"warning: {text}", file=sys.stderr)
    if hint:
        print(f"Next: {hint}", file=sys.stderr)


def explained(error: OSError) -> MachineError:
    """The error as ours: a full disk, a folder without permission."""
    from machine import ownership

    return ownership.explained(error)
