"""The types of options' values, and the options that verbs share. The verbs that run in prompts import this, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.decorators import FC

from machine.errors import Usage

INFINITY = float("inf")


class Size(click.ParamType[int]):
    """MiB, or with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from machine import resources  # the verbs in prompts have no sizes

        try:
            return resources.mib(str(value))
        except Usage as error:
            self.fail(error.message, param, ctx)


class Seconds(click.ParamType[float]):
    """A time of `least` seconds or more."""

    name = "seconds"

    def __init__(self, least: float = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = -INFINITY
        if not self.least <= seconds < INFINITY:
            self.fail(f'invalid time "{value}": give seconds, {self.least:g} or more, for example 60', param, ctx)
        return seconds


class Number(click.ParamType[int]):
    """A whole number, `least` or more."""

    name = "number"

    def __init__(self, least: float = -INFINITY) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f'invalid number "{value}": give a whole number, for example 4', param, ctx)
        if number < self.least:
            self.fail(f'invalid number "{value}": give {self.least:g} or more', param, ctx)
        return number


class Architecture(click.ParamType[str]):
    """The processors of a machine, by one of their names: arm64 is aarch64."""

    name = "architecture"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from machine import resources

        if (found := resources.architecture_named(str(value))) not in resources.ARCHITECTURES:
            known = " or ".join(resources.ARCHITECTURES)
            self.fail(f'invalid processor "{value}": give {known} (amd64 or arm64)', param, ctx)
        return found


name_argument = click.argument("name", metavar="[NAME]", required=False)
machines_argument = click.argument("machines", metavar="[NAME]...", nargs=-1)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
# For the verbs that ask a hypervisor or Docker, and change nothing.
answer_option = click.option(
    "-t", "--timeout", type=Seconds(0.1), default=10, show_default=True, help="Seconds to wait for an answer."
)


def timeout_option(text: str = "Seconds to wait until it is done.") -> Callable[[FC], FC]:
    """For the verbs that work on machines."""
    return click.option("--timeout", type=Seconds(), default=300, show_default=True, help=text)
