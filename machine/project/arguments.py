"""The arguments of a file: what it declares under args, and what --arg gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from machine.errors import Usage
from machine.project.templates import Names, nearest
from machine.project.values import Mistakes, Scalar, Value


def typed(words: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, as typed after --arg. Raises Usage."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Usage(f'invalid --arg "{word}": write NAME=VALUE', hint="machine up --arg version=1.2")
        found[name] = value
    return found


def names(parameters: Value, given: Mapping[str, str], environ: Mapping[str, str], mistakes: Mistakes) -> Names:
    """What templates can name. Raises Usage for a wrong --arg; notes what is wrong with the file."""
    declared = dict((parameters.get("args") or parameters).items()) if parameters.get("args") else {}
    for name in given:
        if name not in declared:
            raise Usage(f'the file has no argument "{name}":{nearest(name, declared)}', hint="machine plan")
    args = {name: _value(name, about, given.get(name), mistakes) for name, about in declared.items()}
    env: dict[str, str] = {}
    for item in (parameters.get("env") or Value([], parameters.place)).values():
        if (name := str(item.data)) in environ:
            env[name] = environ[name]
        else:
            mistakes.add(item.place, f"the variable {name} isn't set: export {name}=...")
    return Names(args, env)


def _value(name: str, about: Value, given: str | None, mistakes: Mistakes) -> Scalar:
    if given is not None:
        if problem := _problem(about, given):
            raise Usage(f"--arg {name}={given}: {problem}", hint=f"machine up --arg {name}=VALUE")
        return given
    default = about.get("default")
    if default is not None:
        assert not isinstance(default.data, dict | list)
        if problem := _problem(about, str(default.data)):
            mistakes.add(default.place, f"default: {problem}")
        return default.data
    if (required := about.get("required")) and required.data is True:
        mistakes.add(about.place, f'the argument "{name}" must be given: --arg {name}=VALUE')
    return ""


def _problem(about: Value, text: str) -> str:
    enum, pattern = about.get("enum"), about.get("pattern")
    if enum and text not in (allowed := [str(item.data) for item in enum.values()]):
        return f'"{text}" is not allowed: give {", ".join(allowed)}'
    if pattern:
        try:
            if not re.fullmatch(str(pattern.data), text):
                return f'"{text}" doesn\'t match {pattern.data}'
        except re.error as error:
            return f"invalid pattern {pattern.data}: {error}"
    return ""
