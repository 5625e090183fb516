"""click's errors in our words, and the text of bare `machine`. Imported only when needed."""

from __future__ import annotations

import re
import sys

import click

from machine.cli.verbs import FIRST, FIRST_ON_WINDOWS, VERBS
from machine.errors import Usage


def explained(error: click.ClickException) -> Usage:
    """click's error as a MachineError: one sentence, and the command that shows the help."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    known = Usage(_sentence(error, ctx), hint=f"{ctx.command_path if ctx else _typed()} --help")
    known.exit_code = error.exit_code
    known.__cause__ = error
    return known


def first_steps(platform: str = sys.platform) -> str:
    """The first commands for a new user."""
    steps = FIRST_ON_WINDOWS if platform == "win32" else FIRST
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{width}}  {text}" for command, text in steps]
    return "\n".join([*lines, "", "All verbs and options: machine --help"])


def _sentence(error: click.ClickException, ctx: click.Context | None) -> str:
    if isinstance(error, click.exceptions.NoSuchOption):
        return f'there is no option "{error.option_name}"{_meant(error.possibilities)}'
    if isinstance(error, click.exceptions.NoSuchCommand):
        group = ctx.command_path.partition(" ")[2] if ctx else ""
        return f'there is no verb "{f"{group} {error.command_name}".strip()}"{_meant(error.possibilities)}'
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} {'takes no' if 'does not take' in error.message else 'needs a'} value"
    if isinstance(error, click.BadParameter):
        what = _name(error.param) if error.param else ""
        if isinstance(error, click.MissingParameter):
            return f"{what} is required"
        return f"{what}: {_plain(error.message)}" if what else _plain(error.message)
    return _plain(error.format_message())


def _meant(possibilities: list[str] | None) -> str:
    return f'; did you mean "{possibilities[0]}"?' if possibilities else ""


def _typed() -> str:
    """The verb of this command line; click names none when a value is missing."""
    return " ".join(["machine", *[word for word in sys.argv[1:] if word in VERBS][:1]])


def _name(param: click.Parameter) -> str:
    """--memory of -m and --memory; of an argument the word that the usage line has."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return re.sub(r"^\[([A-Z]+)\](\.\.\.)?$", r"\1", param.human_readable_name)


def _plain(text: str) -> str:
    """A sentence of click's without its full stop, and with our quotes."""
    if extra := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", text, re.DOTALL):
        return f'unexpected argument "{extra[1]}"'
    if text == "Missing command.":
        return "a verb is required"
    text = re.sub(r"(?<!\w)'([^']*)'(?!\w)", r'"\1"', text).removesuffix(".")
    return text[:1].lower() + text[1:]
