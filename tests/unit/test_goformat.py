from __future__ import annotations

import pytest

from machine.errors import Usage
from machine.goformat import Template

DATA = {"Name": "web", "On": True, "Count": 20000, "Nothing": None, "List": ["a", "b"], "Deep": {"Key": "v", "A": 1}}


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("", ""),
        ("plain } {", "plain } {"),
        ("{{.Name}}", "web"),
        ("<{{ .Deep.Key }}>", "<v>"),
        ("{{.On}} {{.Count}} {{.Nothing}}", "true 20000 <no value>"),
        ("{{.List}} {{.Deep}}", "[a b] map[A:1 Key:v]"),
        ("{{json .List}}", '["a","b"]'),
        ("{{ .Deep | json }}", '{"A":1,"Key":"v"}'),
        ("{{prettyjson .Deep}}", '{\n    "A": 1,\n    "Key": "v"\n}'),
        ("{{json .Name | json}}", '"\\"web\\""'),
        ('{{"a\\tb"}}{{`c\\d`}}', "a\tbc\\d"),
        ("a {{- .Name -}} b", "awebb"),
        ("a {{/* note */}}b", "a b"),
    ],
)
def test_render(template: str, printed: str) -> None:
    assert Template(template).render(DATA) == printed


@pytest.mark.parametrize(
    "template",
    [
        "{{}}",
        "{{if .On}}x{{end}}",
        "{{range .List}}{{.}}{{end}}",
        "{{printf .Name}}",
        "{{index .List 0}}",
        "{{$x := .Name}}",
        "{{.Name .On}}",
        "{{json}}",
        "{{json json .Name}}",
        "{{.Name | }}",
        "{{.Name | .On}}",
        "{{ | json}}",
        "{{.Name",
        "{{.Name.}}",
        "{{..Name}}",
        '{{"open}}',
        "{{5}}",
        "{{jsonx .Name}}",
    ],
)
def test_what_is_not_supported_is_refused(template: str) -> None:
    with pytest.raises(Usage):
        Template(template)


@pytest.mark.parametrize("template", ["{{.Foo}}", "{{.Deep.Foo}}", "{{.Name.Foo}}", "{{.Nothing.Foo}}"])
def test_a_field_that_is_not_there_is_refused(template: str) -> None:
    with pytest.raises(Usage):
        Template(template).render(DATA)


def test_header() -> None:
    assert (
        Template('{{.Name}}\t{{json .URL}}{{"!"}} {{.Deep.Key}}').header({"Name": "NAME", "URL": "AT"})
        == "NAME\tAT! KEY"
    )


def test_needs() -> None:
    assert Template("{{.State}}").needs("State")
    assert Template("{{json .}}").needs("State")
    assert not Template("{{.Driver.State}}").needs("State")
