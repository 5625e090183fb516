"""machine set."""

from __future__ import annotations

import click

from machine.cli import names
from machine.cli.create import Size
from machine.cli.life import on_each, quiet
from machine.errors import Usage
from machine.progress import Progress


@click.command("set")
@click.option("-m", "--memory", "memory_mib", type=Size(), help="MiB, or 8G.")
@click.option("--cpus", type=int, help="Virtual processors.")
@click.option("--disk", "disk_mib", type=Size(), help="A disk grows, and never shrinks.")
@quiet
@click.argument("machines", metavar="[NAME]...", nargs=-1)
def set_(
    machines: tuple[str, ...], quiet: bool, memory_mib: int | None, cpus: int | None, disk_mib: int | None
) -> None:
    """Change the memory, processors or disk of machines: at once where that can be, else at their next start."""
    if memory_mib is None and cpus is None and disk_mib is None:
        raise Usage("what is to be set?", hint="machine set --memory 4G default")

    def work(name: str, shown: Progress) -> str:
        from machine import resize

        now, later = resize.resize(name, shown, memory_mib=memory_mib, cpus=cpus, disk_mib=disk_mib)
        if not now and not later:
            return f'Machine "{name}" is so already.'
        done = f" {' and '.join(now).capitalize()} changed now." if now else ""
        waits = (
            f" {' and '.join(later).capitalize()} will change at the next start: machine restart {name}"
            if later
            else ""
        )
        return f'Machine "{name}":{done}{waits}'

    on_each(names.several(machines), quiet, work)
