"""machine suspend and resume."""

from __future__ import annotations

import click

from machine.cli import targets
from machine.cli.life import on_each, quiet
from machine.cli.options import machines_argument, timeout_option
from machine.progress import Progress


@click.command()
@quiet
@machines_argument
def suspend(machines: tuple[str, ...], quiet: bool) -> None:
    """Write the memory of machines to disk and switch them off. `start` or `resume` continues from there."""
    from machine import capabilities

    def work(name: str, shown: Progress) -> str:
        done = capabilities.suspend(name, shown)
        return f'Machine "{name}" was suspended.' if done else f'Machine "{name}" is already suspended.'

    on_each(targets.several(machines), quiet, work)


@click.command()
@timeout_option()
@quiet
@machines_argument
def resume(machines: tuple[str, ...], quiet: bool, timeout: float) -> None:
    """Continue suspended or paused machines, and wait until Docker answers. The same as `start`."""
    from machine import lifecycle

    def work(name: str, shown: Progress) -> str:
        started = lifecycle.start(name, shown, timeout=timeout)
        return f'Machine "{name}" was resumed.' if started else f'Machine "{name}" is already running.'

    on_each(targets.several(machines), quiet, work)
