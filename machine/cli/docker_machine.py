"""machine import-docker-machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machine.cli import targets
from machine.cli.options import quiet_option
from machine.cli.report import report
from machine.errors import MachineError
from machine.progress import Display

if TYPE_CHECKING:
    from machine.docker_machine.takeover import ImportableMachine


@click.command()
@click.option("--dry-run", is_flag=True, help="Only print what would be taken over.")
@click.option("-m", "--machine", "only", metavar="NAME", multiple=True, help="Take over only NAME. May be repeated.")
@quiet_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print [{"name", "was", "driver", "note": text or null, "error": the same}].',
)
@click.argument("path", required=False, type=click.Path(path_type=Path))
def import_docker_machine(path: Path | None, dry_run: bool, only: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Take over the machines of docker-machine. Its own files don't change.

    PATH is its store, by default ~/.docker/machine. A machine must be running, so that its SSH key can be pinned. It
    keeps its certificates. A VirtualBox machine can be started and stopped here; `rm` only forgets it, and the virtual
    machine stays. A cloud machine becomes a host that SSH reaches (driver generic).
    """
    from machine.docker_machine import takeover

    told: list[dict[str, object]] = []
    failed = False
    with Display(quiet=quiet or as_json) as display:
        for name, found in takeover.find(path or takeover.default()):
            if only and name not in only:
                continue
            error = found if isinstance(found, MachineError) else _take(found, name, display, dry_run=dry_run)
            told.append(_object(name, found, error))
            if error:
                failed = True
                report(error, name=name, as_json=as_json)
            elif not quiet and not as_json:
                print(f"{name} ({told[-1]['was']}): {'would be ' if dry_run else ''}taken over as {told[-1]['driver']}")
    if as_json:
        print(json.dumps(told, indent=4))
    targets.exit_with(1 if failed else 0)


def _take(found: ImportableMachine, name: str, display: Display, *, dry_run: bool) -> MachineError | None:
    from machine.docker_machine import takeover

    try:
        with display.of(name) as shown:
            if found.note:
                shown.note(found.note)
            if not dry_run:
                takeover.take(found, shown)
    except MachineError as error:
        return error
    return None


def _object(name: str, found: ImportableMachine | MachineError, error: MachineError | None) -> dict[str, object]:
    if isinstance(found, MachineError):
        known = dict.fromkeys(("was", "driver", "note"))
    else:
        known = {"was": found.driver, "driver": found.machine.driver, "note": found.note or None}
    return {"name": name, **known, "error": error.message if error else None}
