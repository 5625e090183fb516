"""machine provision and upgrade."""

from __future__ import annotations

import json

import click

from machine import probe, store
from machine.cli import names
from machine.progress import Display

machines_argument = click.argument("machines", metavar="[NAME]...", nargs=-1)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")


@click.command()
@quiet_option
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "changed": [text]}].')
@machines_argument
def provision(machines: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Bring Docker and its settings on running machines in line with what was asked for.

    What is right already is left as it is. Docker is started anew only if its settings were changed.
    """
    from machine.provision import provision as bring_in_line

    wanted = names.several(machines)
    changed: dict[str, list[str]] = {}
    with Display(quiet=quiet or as_json) as display:

        def one(name: str) -> None:
            shown = display.of(name)
            try:
                machine, home, address = probe.running(name)
                with store.changing(name):
                    changed[name] = bring_in_line(machine, home, address, shown)
            finally:
                shown.done()

        code = names.each(wanted, one, as_json=as_json)
    if as_json:
        print(json.dumps([{"name": name, "changed": changed[name]} for name in wanted if name in changed], indent=4))
    elif not quiet:
        for name in changed:
            print(f"{name}: {'; '.join(changed[name]) or 'there was nothing to change'}")
    names.exit_with(code)


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300, show_default=True, help="Seconds until it must be ready."
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "upgraded": text or ""}].')
@machines_argument
def upgrade(machines: tuple[str, ...], quiet: bool, as_json: bool, timeout: float) -> None:
    """Bring machines to the newest system.

    One that boots machineos is stopped, and started with the newest in the cache; one that is off gets it at its next
    start. On another host Docker's package is upgraded.
    """
    from machine.upgrade import upgrade as bring_up

    wanted = names.several(machines)
    done: dict[str, str] = {}
    with Display(quiet=quiet or as_json) as display:

        def one(name: str) -> None:
            shown = display.of(name)
            try:
                done[name] = bring_up(name, shown, timeout=timeout)
            finally:
                shown.done()

        code = names.each(wanted, one, as_json=as_json)
    if as_json:
        print(json.dumps([{"name": name, "upgraded": done[name]} for name in wanted if name in done], indent=4))
    elif not quiet:
        for name in done:
            print(f"{name}: {done[name] or 'it is up to date'}")
    names.exit_with(code)
