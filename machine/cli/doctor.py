"""machine doctor."""

from __future__ import annotations

import json

import click

from machine.cli import targets
from machine.cli.report import labelled, warn
from machine.errors import MachineError
from machine.reasons import reason


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be repaired, and remove what no machine owns.")
@click.option("-q", "--quiet", is_flag=True, help="Print problems only.")
@click.option(
    "--json", "as_json", is_flag=True, help='Print [{"check", "level", "text", "hint", "repaired"}] (level: ok, ...).'
)
def doctor(repair: bool, quiet: bool, as_json: bool) -> None:
    """Find problems of this host and its machines, and print the command that fixes each.

    The exit code is 1 if an error remains. Warnings don't count.

    --repair loses nothing of the store's machines. It removes, with its disk, a virtual machine that has the store's
    mark and no longer belongs to a machine of the store.
    """
    from machine.cli.driver_options import default_driver
    from machine.doctor import examine
    from machine.findings import Level
    from machine.guest.console import clean

    found = []
    failed = False
    for finding in examine(default_driver()):
        repaired = False
        if repair and finding.repair:
            try:
                finding.repair()
                repaired = True
            except (MachineError, OSError) as error:
                warn(f"that can't be repaired: {reason(error)}", finding.hint, as_json=as_json)
        failed = failed or (finding.level is Level.ERROR and not repaired)
        level, text, hint = finding.level.value, finding.text, "" if repaired else finding.hint
        found.append({"check": finding.check, "level": level, "text": text, "hint": hint, "repaired": repaired})
        if not as_json and not (quiet and level == "ok"):
            print(f"{'repaired' if repaired else level:<8}  {finding.check}: {clean(text)}")
            if hint:
                print(f"{'':<8}  {labelled(hint)}")
    if as_json:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    targets.exit_with(1 if failed else 0)
