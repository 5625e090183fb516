"""machine start, stop, kill, restart and rm."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TextIO

import click

from machine import store
from machine.cli import targets
from machine.cli.ask import confirmed
from machine.cli.options import Seconds, machines_argument, quiet_option, timeout_option
from machine.errors import MachineError, NoSuchMachine, Usage
from machine.instance import load
from machine.progress import Display, Progress

_JSON = "machine.cli.life.json"


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_JSON] = value


def quiet(function: click.decorators.FC) -> click.decorators.FC:
    """The options --quiet, and --json, which only `on_each` sees."""
    text = 'Print [{"name", "result": text}] when all is done.'
    as_json = click.option("--json", is_flag=True, expose_value=False, callback=_remember, help=text)
    return quiet_option(as_json(function))


def on_each(wanted: list[str], quiet: bool, work: Callable[[str, Progress], str]) -> None:
    """Do the work on each machine; work returns the line that says what came of it."""
    as_json = click.get_current_context().meta.get(_JSON, False)

    def told(name: str, shown: Progress) -> str:
        text = work(name, shown)
        if not quiet and not as_json:
            print(f"{text}\n", end="", flush=True)  # in one piece: others print at the same time
        return text

    with Display(quiet=quiet or as_json) as display:
        done, code = targets.each(wanted, told, display, as_json=as_json)
    if as_json:
        found = [{"name": name, "result": text} for name, text in done.items()]
        print(json.dumps(found, indent=4, ensure_ascii=False))
    targets.exit_with(code)


@click.command()
@timeout_option()
@quiet
@machines_argument
def start(machines: tuple[str, ...], quiet: bool, timeout: float) -> None:
    """Start machines, and wait until Docker answers. A paused or suspended one continues where it was."""
    from machine import lifecycle

    def work(name: str, shown: Progress) -> str:
        started = lifecycle.start(name, shown, timeout=timeout)
        return f'Machine "{name}" was started.' if started else f'Machine "{name}" is already running.'

    on_each(targets.several(machines), quiet, work)


@click.command()
@click.option(
    "--timeout",
    type=Seconds(),
    help="Seconds to wait. Default: the time that the slowest container may take, and a minute.",
)
@quiet
@machines_argument
def stop(machines: tuple[str, ...], quiet: bool, timeout: float | None) -> None:
    """Shut machines down through their power button.

    Containers are stopped first: each has its --stop-timeout (docker run), or 10 s, to end. With --timeout, slower ones
    are killed in time.
    """
    from machine import lifecycle

    def work(name: str, shown: Progress) -> str:
        stopped = lifecycle.stop(name, shown, timeout=timeout)
        return f'Machine "{name}" was stopped.' if stopped else f'Machine "{name}" is already stopped.'

    on_each(targets.several(machines), quiet, work)


@click.command()
@quiet
@machines_argument
def kill(machines: tuple[str, ...], quiet: bool) -> None:
    """Switch machines off at once, without shutting them down. Use it when `stop` doesn't help."""
    from machine import lifecycle

    def work(name: str, shown: Progress) -> str:
        killed = lifecycle.kill(name, shown)
        return f'Machine "{name}" was killed.' if killed else f'Machine "{name}" is already stopped.'

    on_each(targets.several(machines), quiet, work)


@click.command()
@timeout_option("Seconds to wait for the start. The stop takes as long as containers need.")
@quiet
@machines_argument
def restart(machines: tuple[str, ...], quiet: bool, timeout: float) -> None:
    """Stop machines and start them again. Their addresses stay."""
    from machine import lifecycle

    def work(name: str, shown: Progress) -> str:
        lifecycle.stop(name, shown)
        lifecycle.start(name, shown, timeout=timeout)
        return f'Machine "{name}" was restarted.'

    on_each(targets.several(machines), quiet, work)


@click.command()
@click.option("-f", "--force", is_flag=True, help="Don't ask. Also accept damaged and missing machines.")
@click.option("-y", "yes", is_flag=True, help="Don't ask.")
@quiet
@click.argument("machines", metavar="NAME...", nargs=-1)
def rm(machines: tuple[str, ...], force: bool, yes: bool, quiet: bool) -> None:
    """Remove machines: the virtual machine, its disk, its keys."""
    from machine import lifecycle

    if not machines:
        raise Usage("Expected to get one or more machine names as arguments", hint="machine ls")
    wanted = [name for name in dict.fromkeys(machines) if _is_there(name, force)]
    as_json = click.get_current_context().meta.get(_JSON, False)
    if not (force or yes) and not _confirmed(wanted, sys.stderr if quiet or as_json else sys.stdout):
        return

    def work(name: str, shown: Progress) -> str:
        lifecycle.remove(name, shown, force=force)
        return f"Successfully removed {name}"

    if wanted:
        on_each(wanted, quiet, work)


def _is_there(name: str, force: bool) -> bool:
    there = store.has_folder(name)
    if not there and not force:
        raise NoSuchMachine(name)
    return there


def _warnings(wanted: list[str]) -> list[str]:
    kept = [name for name in wanted if not _is_ours(name)]
    lines = ["This deletes the virtual machines with all that is on their disks."] if len(kept) < len(wanted) else []
    return lines + [
        f"{name} is only removed from the store: the host, or the virtual machine, stays as it is." for name in kept
    ]


def _is_ours(name: str) -> bool:
    """Whether we made it. True also for a machine that can't be read: removing it may delete a disk."""
    try:
        return load(name).driver.kind.is_ours
    except MachineError:
        return True


def _confirmed(wanted: list[str], out: TextIO) -> bool:
    print(f"About to remove {', '.join(wanted)}", file=out)
    for line in _warnings(wanted):
        print(f"WARNING: {line}", file=out)
    hint = f"machine rm -y {' '.join(wanted)}"
    return confirmed("Are you sure?", hint=hint, out=out)
