"""machine setup."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

import click

from machine.cli import targets
from machine.cli.report import labelled
from machine.errors import CheckFailed, ToolFailed

if TYPE_CHECKING:
    from machine.host_setup import Lack

# A tool may need another one: what is missing is looked for again after each round.
_ROUNDS = 5


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Run the commands that are printed, with sudo where they need root.")
@click.option("--driver", metavar="NAME", envvar="MACHINE_DRIVER", help="For this driver.  [env: MACHINE_DRIVER]")
@click.option("--json", "as_json", is_flag=True, help='Print [{"what", "commands": [[word]], "hint", "needed"}].')
def setup(yes: bool, driver: str | None, as_json: bool) -> None:
    """Look what this host lacks for its first machine: programs, the machines' operating system, a docker client.

    Prints the command that brings each. The exit code is 3 if something is missing that every machine needs.
    """
    from machine.cli.driver_options import default_driver
    from machine.host_setup import lacks

    chosen = driver or default_driver()
    if yes:
        _install(chosen)
    found = list(lacks(chosen))
    if as_json:
        objects = [{**vars(lack), "commands": [list(words) for words in lack.commands]} for lack in found]
        print(json.dumps(objects, indent=4))
    else:
        _print(found, chosen, yes=yes)
    targets.exit_with(CheckFailed.exit_code if any(lack.needed for lack in found) else 0)


def _install(driver: str) -> None:
    """Run what brings that which is missing, once each. Raises ToolFailed, ToolMissing."""
    from machine.host_setup import lacks
    from machine.run import stream

    done: set[tuple[str, ...]] = set()
    for _ in range(_ROUNDS):
        todo = [words for lack in lacks(driver) for words in lack.commands if words not in done]
        if not todo:
            return
        for words in todo:
            print(f"$ {shlex.join(words)}", file=sys.stderr, flush=True)
            # The program may not be on PATH yet.
            own = [sys.executable, "-m", "machine", *words[1:]] if words[0] == "machine" else list(words)
            done.add(words)
            if code := stream(own).code:
                raise ToolFailed(words, code, "", hint="machine setup")


def _print(found: list[Lack], driver: str, *, yes: bool) -> None:
    for lack in found:
        print(f"{'missing' if lack.needed else 'optional':<8}  {lack.what}")
        for line in [shlex.join(words) for words in lack.commands] or [lack.hint]:
            print(f"{'':<8}  {labelled(line)}")
    if any(lack.needed for lack in found):
        if not yes and any(lack.commands for lack in found):
            print("To have these commands run: machine setup --yes")
    else:
        print(f"This host can make machines with the driver {driver}: machine create")
