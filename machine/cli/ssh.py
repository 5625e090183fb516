"""machine ssh: everything after NAME belongs to ssh and the command, so no option is parsed there."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from machine import store
from machine.cli import targets
from machine.cli.options import name_argument
from machine.errors import NoSuchMachine, Usage
from machine.instance import running

if TYPE_CHECKING:
    from collections.abc import Sequence

# Options of OpenSSH that take a value (ssh(1)).
_WITH_VALUE = set("BbcDEeFIiJLlmOoPpQRSWw")


class _Raw(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click would drop this dash-dash, and take the command's first word for NAME.
        return super().parse_args(ctx, [targets.DEFAULT, *args] if args[:1] == ["--"] else args)


@click.command(cls=_Raw, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_argument
@click.argument("words", metavar="[SSH-OPTION...] [--] [COMMAND...]", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str | None, words: tuple[str, ...]) -> None:
    """Log in to a machine, or run a command on it; the exit code is the command's.

    \b
    machine ssh
    machine ssh default uptime
    machine ssh default -L 8080:127.0.0.1:80 -N
    """
    if name is not None and name.startswith("-"):
        raise Usage(f"the machine's name must come before {name}", hint=f"machine ssh {targets.DEFAULT} {name}")
    extra, command = split(words)
    code = running(_chosen(name, words)).shell().interactive(command, extra=extra)
    targets.exit_with(128 - code if code < 0 else code)  # negative: a signal ended ssh


def _chosen(name: str | None, words: Sequence[str]) -> str:
    try:
        return targets.one(name)
    except NoSuchMachine as error:
        if name and words and store.exists(targets.DEFAULT):
            typed = shlex.join([name, *words])
            error.hint = f"machine ssh {targets.DEFAULT} {typed}"
        raise


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """ssh's own options, and the command: `-L 1:a:2 -N ls -l` -> (`-L 1:a:2 -N`, `ls -l`)."""
    options: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in {"-", "--"}:
        option = rest.pop(0)
        options.append(option)
        # In -vL the value is the next word; in -L1:a:2 it is within the option.
        with_value = next((at for at, letter in enumerate(option[1:], 1) if letter in _WITH_VALUE), None)
        if with_value == len(option) - 1 and rest:
            options.append(rest.pop(0))
    return options, rest[1:] if rest[:1] == ["--"] else rest
