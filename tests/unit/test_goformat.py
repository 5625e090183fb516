"""Go's templates. What docker prints for the same was recorded with docker 28.2, and is compared with docker's if it is
installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from machine.errors import Usage
from machine.goformat import Format, Value

DATA: Value = {
    "Name": "web",
    "On": True,
    "Count": 20000,
    "Nothing": None,
    "List": ["a", "b"],
    "Deep": {"Key": "v", "A": 1},
}
# As `docker context inspect` has it.
CONTEXT: Value = {
    "Name": "default",
    "Endpoints": {"docker": {"Host": "unix:///x.sock", "SkipTLSVerify": False}},
    "Files": {},
}


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
        ("{{.Deep.Key}}{{range .Deep}}{{.}}{{end}}", "v1v"),
        ('{{index .Deep "Key"}} {{index .Deep "x.y"}} {{(index .List 0) | upper}}', "v <no value> A"),
        ('{{if index .Deep "x"}}a{{else}}b{{end}}', "b"),
        ("{{len .Deep}} {{len .List}} {{len .Name}}", "2 2 3"),
        ("{{range $i, $x := .List}}{{if $i}}, {{end}}{{$x}}{{end}}", "a, b"),
        ('{{with index .List 1}}{{$.Name}}:{{.}}{{end}}{{join .List "+"}}', "web:ba+b"),
    ],
)
def test_render(template: str, printed: str) -> None:
    assert Format(template).render(DATA) == printed


# With what docker prints for it.
RECORDED = {
    "{{.Name}}": "default",
    "{{.Endpoints.docker.Host}}": "unix:///x.sock",
    "{{if .Name}}yes{{else}}no{{end}}": "yes",
    '{{if eq .Name "x"}}a{{else if eq .Name "default"}}b{{else}}c{{end}}': "b",
    "{{range $k, $v := .Endpoints}}{{$k}}={{$v.Host}};{{end}}": "docker=unix:///x.sock;",
    "{{range .Endpoints}}{{.Host}}{{end}}": "unix:///x.sock",
    '{{range split "a,b,c" ","}}<{{.}}>{{end}}': "<a><b><c>",
    '{{range $i, $x := split "a,b,c" ","}}{{if $i}}, {{end}}{{$x}}{{end}}': "a, b, c",
    '{{range split "" ","}}x{{else}}none{{end}}': "x",
    "{{with .Endpoints.docker}}{{.Host}}{{end}}": "unix:///x.sock",
    "{{with $x := .Name}}{{$x}}{{.}}{{end}}": "defaultdefault",
    '{{with ""}}x{{else}}y{{end}}': "y",
    '{{with ""}}x{{else with "z"}}{{.}}{{end}}': "z",
    '{{(index .Endpoints "docker").Host}}': "unix:///x.sock",
    '{{index (split "a,b,c" ",") 1}}': "b",
    '{{len .Name}} {{len (split "a,b,c" ",")}}': "7 3",
    '{{join (split "a,b,c" ",") "-"}} {{split "a,b,c" ","}}': "a-b-c [a b c]",
    '{{split "abc" ""}}': "[a b c]",
    '{{upper .Name}}{{lower "ABC"}}{{title "hello wORLD o\'neil a-b"}}': "DEFAULTabcHello WORLD O'Neil A-B",
    '{{pad .Name 2 3}}|{{pad "" 2 3}}|': "  default   ||",
    "{{truncate .Name 3}} {{truncate .Name 30}}": "def default",
    '{{println "a" 1 true}}': "a 1 true\n",
    '{{print "a" 1 2 "b" "c" 3 true}} {{print 1 2}}': "a1 2bc3 true 1 2",
    '{{printf "%s-%d-%v-%t-%5s|%-5s|%05d|%.2f|%x|%%" "a" 5 true false "b" "c" 42 1.5 255}}': (
        "a-5-true-false-    b|c    |00042|1.50|ff|%"
    ),
    '{{printf "%q" "q\\"x"}}': '"q\\"x"',
    '{{$x := "a"}}{{if true}}{{$x = "b"}}{{end}}{{$x}}': "b",
    '{{$y := "a"}}{{if true}}{{$y := "b"}}{{end}}{{$y}}': "a",
    "{{range .Endpoints}}{{$.Name}}{{end}}": "default",
    "a  {{- /* c */ -}}  b": "ab",
    '{{"}}"}} {{`raw\\n`}} {{"a\\tb\\x41\\u00e9"}}': "}} raw\\n a\tbA\u00e9",
    "{{'a'}} {{1}} {{-5}} {{1.5}} {{1e3}} {{0x10}} {{2.0}} {{true}} {{not true}}": "97 1 -5 1.5 1000 16 2 true false",
    "{{eq 1 1}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}": "true true true true false false",
    '{{eq "a" "b" "a"}} {{lt "a" "b"}}': "true true",
    '{{and 1 0 2}} {{or 0 "" "x"}}': "0 x",
    '{{slice "abcdef" 1 3}} {{slice "abcdef" 2}} {{slice "abc"}}': "bc cdef abc",
    '{{.Name | upper | printf "%s!"}} {{.Name | printf "%s-%s" "x"}}': "DEFAULT! x-default",
    '{{json "<&>"}} {{json .Name | len}}': '"<&>" 9',
    '{{range split "a,b,c,d" ","}}{{if eq . "b"}}{{continue}}{{end}}{{if eq . "d"}}{{break}}{{end}}{{.}}{{end}}': "ac",
    "{{range 3}}{{.}}{{end}}": "012",
}


@pytest.mark.parametrize("template", RECORDED)
def test_as_docker_prints_it(template: str) -> None:
    assert Format(template).render(CONTEXT) == RECORDED[template]


@pytest.mark.skipif(not shutil.which("docker"), reason="needs the docker client")
def test_docker_prints_the_same(tmp_path: Path) -> None:
    """All in one template: docker is asked once."""
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": "unix:///x.sock"}
    whole = "\n".join(RECORDED)
    done = subprocess.run(
        ["docker", "context", "inspect", "--format", whole],
        env=environment, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "\n".join(RECORDED.values()) + "\n" == Format(whole).render(CONTEXT) + "\n"


@pytest.mark.parametrize(
    "template",
    [
        "{{}}",
        "{{printf}}",
        "{{.Name .On}}",
        "{{json}}",
        "{{json json .Name}}",
        "{{.Name | }}",
        "{{.Name | .On}}",
        "{{ | json}}",
        "{{.Name",
        "{{.Name.}}",
        "{{'ab'}}",
        "{{..Name}}",
        '{{"open}}',
        "{{jsonx .Name}}",
        "{{end}}",
        "{{else}}",
        "{{if}}x{{end}}",
        "{{if .Name}}x",
        "{{if .Name}}x{{else}}y",
        "{{if .Name}}x{{else range .List}}y{{end}}",
        "{{range $a, $b, $c := .List}}{{end}}",
        "{{$a, $b := .List}}",
        "{{$x}}",
        "{{$x = 1}}",
        "{{if true}}{{$x := 1}}{{end}}{{$x}}",
        "{{break}}",
        "{{if .On}}{{continue}}{{end}}",
        "{{(.Name}}",
        "{{.Name)}}",
        '{{"a" | upper "b"}}',
        "{{0xzz}}",
        "{{'ab}}",
        '{{template "x"}}',
        '{{define "x"}}{{end}}',
        "{{call .Name}}",
        "{{.Name # x}}",
    ],
)
def test_what_is_not_supported_is_refused(template: str) -> None:
    with pytest.raises(Usage) as refused:
        Format(template)
    assert refused.value.hint


@pytest.mark.parametrize(
    "template",
    [
        "{{.Foo}}",
        "{{.Deep.Foo}}",
        "{{.Name.Foo}}",
        "{{.Nothing.Foo}}",
        "{{index .List 5}}",
        "{{index .Name 0}}",
        '{{index .List "a"}}',
        "{{range .Name}}{{end}}",
        "{{upper .Count}}",
        "{{len .Count}}",
        '{{join .Name ","}}',
        '{{eq .Count "20000"}}',
        '{{lt .Count "a"}}',
        "{{lt .List .List}}",
        "{{or lt}}",
        "{{slice .Name 2 1}}",
        '{{printf "%d" .Name}}',
        '{{printf "%s"}}',
        '{{printf "%s" 1 2}}',
        '{{split .Count ","}}',
    ],
)
def test_what_the_data_do_not_fit_is_refused(template: str) -> None:
    with pytest.raises(Usage) as refused:
        Format(template).render(DATA)
    assert refused.value.hint


def test_check() -> None:
    """Without values: a list may be empty there."""
    empty: Value = {"Name": "", "List": [], "Deep": {"Key": ""}}
    Format("{{index .List 0}}{{range .List}}{{.X}}{{end}}{{with .Deep}}{{.Key}}{{$.Name}}{{end}}").check(empty)
    for template in (
        "{{.Foo}}",
        "{{if .Deep.Foo}}{{end}}",
        "{{range .List}}{{$.Foo}}{{end}}",
        "{{json .Deep | len | eq .Foo}}",
    ):
        with pytest.raises(Usage, match="there is no Foo"):
            Format(template).check(empty)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ('{{.Name}}\t{{json .URL}}{{"!"}} {{.Deep.Key}}', "NAME\tAT! KEY"),
        ('{{upper .Name}}\t{{if .URL}}{{.URL}}{{end}}\t{{join .List ","}}', "NAME\tAT\tLIST"),
        ("{{range .List}}{{.}}{{end}}\t{{$x := .Name}}{{$x}}", "LIST\t"),
        ('{{index .Deep "x"}}\t{{(index .List 0).Key}}\t{{5}}', "DEEP\tLIST\t5"),
    ],
)
def test_header(template: str, line: str) -> None:
    assert Format(template).header({"Name": "NAME", "URL": "AT"}) == line


def test_needs() -> None:
    for template in (
        "{{.State}}",
        "{{json .}}",
        '{{if eq .State "x"}}{{end}}',
        "{{$.State}}",
        "{{(json .State) | len}}",
    ):
        assert Format(template).needs("State")
    assert not Format("{{.Driver.State}}").needs("State")
    assert not Format("{{range .List}}{{.State.X}}{{end}}").needs("Name")


def test_json_is_sorted() -> None:
    assert json.loads(Format("{{json .}}").render(DATA)) == DATA
