"""The machines that a verb works on, by its NAME arguments, and the work on several of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from machine import store
from machine.cli.report import explained, report
from machine.errors import MachineError, NoSuchMachine, Usage

if TYPE_CHECKING:  # the verbs in prompts show no progress
    from machine.progress import Display, Progress

T = TypeVar("T")
DEFAULT = "default"
# So many machines are worked on at a time: enough to hide waiting, few enough for a laptop.
AT_ONCE = 4


def one(name: str | None) -> str:
    """The machine that a verb works on: the given name, else `default`. Raises Usage, NoSuchMachine."""
    if name is None and not store.exists(DEFAULT):
        raise Usage('No machine name(s) specified and no "default" machine exists', hint="machine create default")
    chosen = DEFAULT if name is None else name
    if not store.exists(chosen):
        raise NoSuchMachine(chosen)
    return chosen


def several(names: Sequence[str]) -> list[str]:
    """As `one`, for verbs that take many; a bad name among them stops the verb before it acts on any."""
    return list(dict.fromkeys(one(name) for name in names)) if names else [one(None)]


def readable() -> list[str]:
    """All machines of the store, except those whose machine.json can't be read: these are only reported."""
    found = []
    for name in store.names():
        try:
            found.append(store.load(name).name)
        except MachineError as error:
            report(error, name=name)
    return found


def each(
    names: Sequence[str], work: Callable[[str, Progress], T], display: Display, *, as_json: bool = False
) -> tuple[dict[str, T], int]:
    """Do the work for each name, several at once. Errors of one don't stop the others, and are reported at the end.

    Unlike `probe.together`, which leaves a late question to itself, it waits for all work: none may end half done.
    Returns what work returned, in the order of names, and the exit code.
    """
    from concurrent.futures import ThreadPoolExecutor

    from machine import wait

    done: dict[str, T] = {}
    failures: dict[str, MachineError] = {}

    def guarded(name: str) -> None:
        try:
            with display.of(name) as shown:
                done[name] = work(name, shown)
        except MachineError as error:
            failures[name] = error
        except BrokenPipeError:
            raise
        except Exception as error:  # one machine's trouble must not end the work on the others
            failures[name] = explained(error)

    if len(names) == 1:
        guarded(names[0])
    else:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                list(pool.map(guarded, names))
            except KeyboardInterrupt:
                wait.interrupt()
                pool.shutdown(cancel_futures=True)
                raise
    for name, error in failures.items():
        report(error, name=name if len(names) > 1 else "", as_json=as_json)
    code = max((error.exit_code for error in failures.values()), default=0)
    return {name: done[name] for name in names if name in done}, code


def exit_with(code: int) -> None:
    """End the verb with an exit code, without a message: everything has been printed."""
    if code:
        import click

        raise click.exceptions.Exit(code)
