"""machine provision and upgrade."""

from __future__ import annotations

import json
from functools import partial

import click

from machine.cli import targets
from machine.cli.options import machines_argument, quiet_option, timeout_option
from machine.instance import changing, running
from machine.progress import Display, Progress


@click.command()
@quiet_option
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "changed": [text]}].')
@machines_argument
def provision(machines: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Apply the settings of running machines again: Docker, its settings, and its certificates.

    Only what differs is changed. Docker is restarted only if its settings changed.
    """
    from machine.guest.provision import provision as bring_in_line

    def work(name: str, shown: Progress) -> list[str]:
        running(name)
        with changing(name) as instance:
            return bring_in_line(instance, shown)

    wanted = targets.several(machines)
    with Display(quiet=quiet or as_json) as display:
        changed, code = targets.each(wanted, work, display, as_json=as_json)
    if as_json:
        print(json.dumps([{"name": name, "changed": texts} for name, texts in changed.items()], indent=4))
    elif not quiet:
        for name, texts in changed.items():
            print(f"{name}: {'; '.join(texts) or 'there was nothing to change'}")
    targets.exit_with(code)


@click.command()
@timeout_option("Seconds to wait until Docker and SSH answer.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "upgraded": text or ""}].')
@machines_argument
def upgrade(machines: tuple[str, ...], quiet: bool, as_json: bool, timeout: float) -> None:
    """Upgrade machines to the newest system.

    A running machine with machineos is restarted with the newest image of the cache. A stopped one gets it at its next
    start. On other systems the package of Docker is upgraded.
    """
    from machine.upgrade import upgrade as bring_up

    wanted = targets.several(machines)
    with Display(quiet=quiet or as_json) as display:
        done, code = targets.each(wanted, partial(bring_up, timeout=timeout), display, as_json=as_json)
    if as_json:
        print(json.dumps([{"name": name, "upgraded": text} for name, text in done.items()], indent=4))
    elif not quiet:
        for name, text in done.items():
            print(f"{name}: {text or 'it is up to date'}")
    targets.exit_with(code)
