"""The types of options' values. The verbs that run in prompts import this, too."""

from __future__ import annotations

from typing import Any

import click

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
