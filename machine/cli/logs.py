"""machine logs: the serial console, where the guest's kernel and init say what they do."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from machine import store
from machine.cli import INTERRUPTED, targets
from machine.cli.options import Number, name_argument
from machine.errors import MachineError, Usage
from machine.guest import console


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they come, even after a restart, until Ctrl-C.")
@click.option("-n", "--tail", "lines", type=Number(0), metavar="LINES", help="Print only the last LINES lines.")
@click.option("--previous", is_flag=True, help="Print the console of the previous run.")
@click.option("--provision", is_flag=True, help="Print what the steps of its machine.yaml printed, in place of it.")
@name_argument
def logs(name: str | None, follow: bool, lines: int | None, previous: bool, provision: bool) -> None:
    """Print a machine's serial console, without control sequences for your terminal."""
    if follow and previous:
        raise Usage("--follow and --previous exclude each other", hint="machine logs --previous")
    if provision and (follow or previous):
        raise Usage("--provision goes with neither --follow nor --previous", hint="machine logs --provision")
    chosen = targets.one(name)
    folder = store.folder_of(chosen)
    if provision:
        _provisioned(chosen, folder / "provision.log", lines)
        return
    if follow:
        try:
            _print(console.follow(folder.console, lines))
        except KeyboardInterrupt:
            targets.exit_with(INTERRUPTED)
    path = folder.console.with_name(folder.console.name + ".1") if previous else folder.console
    try:
        _print(console.read(path, lines))
    except FileNotFoundError as error:
        raise MachineError(
            f'the machine "{chosen}" has no console log of {"an earlier run" if previous else "a run"}',
            hint=f"machine logs {chosen}" if previous else f"machine start {chosen}",
        ) from error


def _provisioned(name: str, path: Path, lines: int | None) -> None:
    try:
        _print(console.read(path, lines))
    except FileNotFoundError as error:
        raise MachineError(f'no step of a machine.yaml has run in the machine "{name}"', hint="machine plan") from error


def _print(blocks: Iterable[bytes]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a guest writes what this terminal's encoding may not have
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    cleaner = console.Cleaner()
    for block in blocks:
        # Nothing new: what was held back to see how it goes on is as complete as it gets.
        if text := cleaner.feed(decoder.decode(block), last=not block):
            print(text, end="", flush=not block or len(block) < console.BLOCK)
    if text := cleaner.feed(decoder.decode(b"", final=True), last=True):
        print(text, end="")
