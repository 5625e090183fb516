"""A long help, divided into sections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

# It keeps a note in brackets on one line, and becomes a blank when the lines are broken.
_UNBROKEN = "\N{NO-BREAK SPACE}"


class Option(click.Option):
    """section: the heading that help shows it under. shown: the default that help shows, where a driver applies it.

    Help shows its variable as [env: NAME].
    """

    def __init__(self, *args: Any, section: str = "Options", shown: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.section = section
        self.shown = shown

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        if self.hidden:
            return None
        default = self.shown or self.get_help_extra(ctx).get("default")
        notes = [f"[default: {default}]"] if default else []
        notes += [f"[env: {self.envvar}]"] if self.envvar else []
        text = "  ".join([self.help or "", *(note.replace(" ", _UNBROKEN) for note in notes)])
        return self.get_help_spec(ctx), text


class InSections(click.Command):
    """A command whose help has its options under several headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, options in _sections(self.shown_options(ctx)).items():
            with formatter.section(heading):
                formatter.write_dl([record for one in options if (record := one.get_help_record(ctx))])

    def shown_options(self, ctx: click.Context) -> list[click.Option]:
        return [param for param in self.get_params(ctx) if isinstance(param, click.Option)]

    def get_help(self, ctx: click.Context) -> str:
        return super().get_help(ctx).replace(_UNBROKEN, " ")


def _sections(options: Iterable[click.Option]) -> dict[str, list[click.Option]]:
    found: dict[str, list[click.Option]] = {}
    for option in options:
        found.setdefault(getattr(option, "section", "Options"), []).append(option)
    return found
