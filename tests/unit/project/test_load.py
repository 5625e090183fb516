"""machine.yaml: what it becomes, and what is said of a wrong one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import jsonschema
import pytest

from machine import paths, registry, resources
from machine.cli import project_keys
from machine.errors import CheckFailed, MachineError, Usage
from machine.project import arguments, load, locate, schema
from machine.project.load import Project
from machine.project.steps import Mode, Probe, Step


def loaded(folder: Path, text: str, *args: str, environ: Mapping[str, str] | None = None) -> Project:
    file = folder / "machine.yaml"
    file.write_text(text, encoding="utf-8")
    return load.load(file, schema.packaged(), arguments.typed(args), environ or {})


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(CheckFailed) as raised:
        loaded(folder, text)
    return raised.value.details.splitlines() or [raised.value.message]


def test_defaults_merge_lists_append_and_counts_number(store: Path, tmp_path: Path) -> None:
    project = loaded(
        tmp_path,
        """\
defaults: {memory: 1G, engine-label: [a=1], driver: none}
machines:
  web: {count: 2, memory: 2G, engine-label: [b=2]}
  db:
""",
    )
    assert project.name == re.sub("[^a-z0-9.-]+", "-", tmp_path.name)
    assert [(one.name, one.group) for one in project.machines] == [("web-1", "web"), ("web-2", "web"), ("db", "db")]
    assert project.machines[0].options == {"memory": "2G", "engine-label": ["a=1", "b=2"], "driver": "none"}
    assert project.machines[2].options == {"memory": "1G", "engine-label": ["a=1"], "driver": "none"}
    assert [one.name for one in project.chosen(["web"])] == ["web-1", "web-2"]
    with pytest.raises(Usage, match='did you mean "web-1"'):
        project.chosen(["wbe-1"])


def test_all_mistakes_are_told_at_once_with_their_places(store: Path, tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """\
nam: x
defaults:
  memory: lots
machines:
  web:
    memroy: 2G
    cpus: two
    engine-label: [x]
    driver: qemo
    no-tls: maybe
    count: 0
  a_b: {host: [foo], tls-san: one}
""",
    )
    assert found == [
        'machine.yaml:1:1: unknown key "nam": did you mean "name"?',
        'machine.yaml:3:11: memory: "lots" is not allowed, for example 4G',
        'machine.yaml:6:5: unknown key "memroy": did you mean "memory"?',
        'machine.yaml:7:11: cpus: "two" is not allowed: give a whole number, for example 4',
        'machine.yaml:8:20: engine-label: invalid label "x" (write KEY=VALUE: --engine-label stage=test)',
        'machine.yaml:9:13: driver: there is no driver "qemo": did you mean "qemu"?',
        'machine.yaml:10:13: no-tls: "maybe" is not allowed: give true or false',
        "machine.yaml:11:12: count: 0 is too small: 1 at least",
        'machine.yaml:12:3: invalid name "a_b": use letters, digits, dots and dashes, a letter or digit first',
        'machine.yaml:12:16: host: invalid host "foo" (write NAME=IP: --host registry.test=192.168.1.10)',
        'machine.yaml:12:31: tls-san: "one" is not allowed: give a list, for example [dev.example]',
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "machine.yaml:1:1: machines must be given"),
        ("machines: {}", "machine.yaml:1:1: machines: a mapping is too short: 1 at least"),
        ("machines: [a]", "machine.yaml:1:1: machines: a list is not allowed: give a mapping"),
        ("machines:\n  a: {memory: 1G, memory: 2G}", 'machine.yaml:2:19: the key "memory" is here twice'),
        ("machines:\n  a: [1", "machine.yaml:3:1: did not find expected"),
        ("machines:\n\ta: 1", "machine.yaml:2:1: found character that cannot start any token"),
        ("machines: &a {b: *a}", "machine.yaml:1:11: an alias leads to what it is a part of"),
        ("machines: {a-1: , a: {count: 1}}", 'machine.yaml:1:19: "a" and "a-1" both make a machine "a-1"'),
        ("name: a b\nmachines: {a: }", 'machine.yaml:1:7: name: "a b" is not allowed, for example shop'),
        ("env: [NOT_SET]\nmachines: {a: }", "machine.yaml:1:7: the variable NOT_SET isn't set"),
        ("machines: {a: {memory: '${{ args.x }}'}}", 'machine.yaml:1:24: there is no "x" under args'),
        ("machines: {a: {memory: '${{ env.HOME }}'}}", 'machine.yaml:1:24: there is no "HOME" under env'),
        ("machines: {a: {memory: '${{ HOME }}'}}", "machine.yaml:1:24: ${{ HOME }} isn't understood"),
        ("machines: {a: {memory: '${{ args.x'}}", "machine.yaml:1:24: a ${{ has no }}"),
        ("args: {x: {required: true}}\nmachines: {a: }", 'machine.yaml:1:11: the argument "x" must be given'),
        ("args: {x: {enum: [a], default: b}}\nmachines: {a: }", 'machine.yaml:1:32: default: "b" is not allowed'),
        ("args: {x: {patern: a}}\nmachines: {a: }", 'machine.yaml:1:12: unknown key "patern": did you mean'),
        ("base: nowhere.yaml\nmachines: {a: }", "machine.yaml:1:7: base: there is no file"),
        ("base: machine.yaml\nmachines: {a: }", "machine.yaml:1:7: base: machine.yaml is based on this file"),
        ("base: http://127.0.0.1:9/x\nmachines: {a: }", "machine.yaml:1:7: base: the URL has no digest"),
    ],
)
def test_each_mistake_has_its_place(store: Path, tmp_path: Path, text: str, told: str) -> None:
    [found] = mistakes(tmp_path, text)
    assert found.startswith(told)


def test_arguments_and_listed_variables_are_filled_in(store: Path, tmp_path: Path) -> None:
    text = """\
args:
  size: {default: 1G, enum: [1G, 2G]}
  number: {default: 2, pattern: "[0-9]"}
  plain: {default: true}
env: [WHO]
machines:
  web:
    count: ${{ args.number }}
    memory: ${{ args.size }}
    no-tls: ${{ args.plain }}
    engine-label: ["who=${{ env.WHO }}", "n=${{args.number}}", "raw=$${{ x }}"]
"""
    project = loaded(tmp_path, text, "size=2G", "number=3", environ={"WHO": "ann", "HOME": "/root"})
    assert len(project.machines) == 3
    assert project.machines[0].options == {
        "memory": "2G",
        "no-tls": True,
        "engine-label": ["who=ann", "n=3", "raw=${{ x }}"],
    }
    assert project.environment == ("WHO",)
    for wrong, told in (("size=3G", "give 1G, 2G"), ("number=x", "doesn't match"), ("sise=1G", 'did you mean "size"')):
        with pytest.raises(Usage, match=told):
            loaded(tmp_path, text, wrong, environ={"WHO": "ann"})


def test_a_base_is_a_file_or_a_url_with_its_digest(store: Path, tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/below.yaml").write_text(
        "defaults: {cpus: 1, engine-label: [a=1]}\nmachines: {db: {memory: 1G}}\n"
    )
    (tmp_path / "common/base.yaml").write_text("base: below.yaml\ndefaults: {engine-label: [b=2]}\n")
    project = loaded(tmp_path, "base: common/base.yaml\ndefaults: {cpus: 3}\nmachines: {db: {disk: 3G}, web: }\n")
    assert [one.name for one in project.machines] == ["db", "web"]
    assert project.machines[0].options == {"memory": "1G", "disk": "3G", "cpus": 3, "engine-label": ["a=1", "b=2"]}

    fetched = tmp_path / "common/below.yaml"
    text = f"base: {fetched.as_uri()}#sha256={sha256(fetched.read_bytes()).hexdigest()}\nmachines: {{web: }}\n"
    assert [one.name for one in loaded(tmp_path, text).machines] == ["db", "web"]
    fetched.unlink()  # it is fetched once
    assert [one.name for one in loaded(tmp_path, text).machines] == ["db", "web"]
    fetched.write_text("machines: {other: }")
    for kept in (paths.store() / "bases").iterdir():
        kept.write_text("machines: {evil: }")
    assert "has another digest: sha256=" in mistakes(tmp_path, text)[0]


def test_a_mistake_of_a_base_names_the_base(store: Path, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("defaults:\n  memroy: 1G\n")
    [found] = mistakes(tmp_path, "base: base.yaml\nmachines: {web: }\n")
    assert found.startswith("base.yaml:2:3: unknown key")


def test_scalars_are_those_of_yaml_1_2(store: Path, tmp_path: Path) -> None:
    project = loaded(tmp_path, "machines: {a: {engine-env: [A=no, B=on], engine-storage-driver: no, cpus: 2}}")
    assert project.machines[0].options == {"engine-env": ["A=no", "B=on"], "engine-storage-driver": "no", "cpus": 2}


def test_the_file_is_found_upwards(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    with pytest.raises(CheckFailed, match="nor in a folder above"):
        locate.find(None)
    (tmp_path / "machine.yaml").touch()
    assert locate.find(None) == tmp_path / "machine.yaml"
    (tmp_path / "a/machine.yaml").touch()
    assert locate.find(None) == tmp_path / "a/machine.yaml"
    with pytest.raises(CheckFailed, match="there is no file"):
        locate.find(Path("other.yaml"))


@pytest.mark.parametrize("text", ["4G", "512", "1.5GiB", "512m", "2 T", "1k", "lots", "", "-1", "1.G"])
def test_the_schema_takes_the_sizes_that_create_takes(text: str) -> None:
    try:
        taken = bool(resources.mib(text))
    except MachineError:
        taken = False
    assert bool(re.search(schema.SIZE, text)) == taken


def test_the_schema_of_the_package_is_current(store: Path) -> None:
    """`make docs` writes it."""
    ours = [name for name in registry.names() if name != "fake"]
    assert schema.FILE.read_text(encoding="utf-8") == schema.dumps(project_keys.built(ours))
    jsonschema.Draft202012Validator.check_schema(schema.packaged())


def test_each_option_of_create_is_a_key_or_has_a_reason(store: Path) -> None:
    import click

    from machine.cli.create import create

    names = {
        project_keys.name_of(option)
        for option in create.get_params(click.Context(create))
        if option.param_type_name == "option"
    }
    keys = set(project_keys.current()["$defs"]["machine"]["properties"])
    assert names == (keys - set(load.OWN)) | set(project_keys.LEFT_OUT)
    assert not keys & set(project_keys.LEFT_OUT)
    assert all(project_keys.LEFT_OUT.values())


def test_steps_and_probes(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.sh").write_text("#!/bin/sh\necho setup\n")
    text = """\
defaults:
  provision: [{script: "echo $${{ x }}", mode: boot}]
machines:
  web:
    provision:
      - {script: {file: setup.sh}, name: packages, timeout: 9}
      - {copy: {from: setup.sh, to: /opt/, mode: 0755, owner: docker}, mode: user}
    probes:
      - {command: "true", hint: look, timeout: 3, name: truth}
      - command: test -e /x
"""
    [web] = loaded(tmp_path, text).machines
    assert web.steps == (
        Step("step 1", Mode.BOOT, script="echo ${{ x }}"),
        Step("packages", timeout=9, script="#!/bin/sh\necho setup\n"),
        Step(
            "step 3",
            Mode.USER,
            source=f"{tmp_path}/setup.sh",
            target="/opt/setup.sh",
            permissions="0755",
            owner="docker",
        ),
    )
    assert web.probes == (Probe("truth", "true", "look", 3), Probe("`test -e /x` to succeed", "test -e /x"))


def test_mistakes_in_steps(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """\
machines:
  web:
    provision:
      - {script: x, copy: {from: a, to: /b}}
      - {mode: boot}
      - {script: x, mode: bott}
      - {copy: {from: absent, to: /b}}
      - {copy: {from: machine.yaml, to: b, mode: "9"}}
      - {script: {file: absent}}
      - {script: {fiel: absent}}
      - {scrip: x}
    probes: [{hint: x}]
"""
    assert mistakes(tmp_path, text) == [
        "machine.yaml:4:9: a step has either script or copy",
        "machine.yaml:5:9: a step has either script or copy",
        'machine.yaml:6:27: mode: "bott" is not allowed: did you mean "boot"?',
        f"machine.yaml:7:23: there is no file {tmp_path}/absent",
        'machine.yaml:8:41: to: "b" is not allowed, for example /etc/x.conf',
        'machine.yaml:8:50: mode: "9" is not allowed, for example 0644',
        "machine.yaml:9:25: absent can't be read: No such file or directory",
        "machine.yaml:10:10: script: file must be given",
        'machine.yaml:10:19: unknown key "fiel": did you mean "file"?',
        "machine.yaml:11:9: a step has either script or copy",
        'machine.yaml:11:10: unknown key "scrip": did you mean "script"?',
        "machine.yaml:12:14: probes: command must be given",
    ]
