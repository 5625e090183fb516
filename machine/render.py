"""Templates: the one jinja2 environment."""

from __future__ import annotations

import functools
import typing

if typing.TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, /, **values: object) -> str:
    """Render templates/TEMPLATE, whose name has slashes: "seed/user-data.yaml.j2".

    A value that the template names and the caller doesn't give is an error. Values are escaped by themselves in
    *.xml.j2; elsewhere the template writes `tojson`, which also is a quoted scalar in YAML.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    # 36 ms to import: only verbs that render pay for it.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_source),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".xml.j2"),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Options stay in the order in which they were typed; and YAML doesn't join JSON's surrogate pairs (\ud83d\ude00).
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False}
    return environment


def _source(name: str) -> str | None:
    from importlib import resources

    file = resources.files("machine.templates").joinpath(*name.split("/"))
    return file.read_text(encoding="utf-8") if file.is_file() else None
