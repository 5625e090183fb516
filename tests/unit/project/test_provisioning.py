"""Steps and probes: the scripts run here, in place of a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machine import instance, ssh
from machine.errors import CheckFailed, MachineError, WaitTimeout
from machine.instance import Instance
from machine.progress import Silent
from machine.project import provisioning, record
from machine.project.record import Record
from machine.project.steps import Mode, Probe, Step, probed
from machine.run import Completed
from tests.fixture_types import Add

pytestmark = pytest.mark.skipif(not shutil.which("timeout"), reason="no timeout(1) here, as it is in each guest")
Provisioned = Callable[..., list[str]]


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands of machines run here; who ran each is in the list."""
    found: list[str] = []

    def run(folder: Any, address: Any, user: str, command: list[str], *, input: bytes | None, **_: Any) -> Completed:
        line = command[0].removeprefix("sudo -n ")
        found.append("root" if line != command[0] else user)
        done = subprocess.run(["sh", "-c", line], input=input, capture_output=True, check=False)
        return Completed(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    monkeypatch.setattr(ssh, "run", run)
    return found


@pytest.fixture
def web(add: Add, users: list[str]) -> Instance:
    add("web", state="Running")
    return instance.load("web")


@pytest.fixture
def provisioned(web: Instance) -> Provisioned:
    """Give the machine these steps in place of its earlier ones, and run them: the names of those that ran."""

    def run(*steps: Step, probes: tuple[Probe, ...] = ()) -> list[str]:
        known = record.read(web.folder)
        changed = {"steps": steps, "probes": probes}
        record.write(web.folder, Record(**{**vars(known), "file": "f", **changed}))
        return provisioning.run(web, Silent())

    return run


def log(web: Instance) -> str:
    return (web.folder / provisioning.LOG).read_text(encoding="utf-8")


def test_each_step_runs_once_and_a_changed_one_again(
    web: Instance, provisioned: Provisioned, users: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = Step("first", script=f"echo one $MACHINE_NAME $PWD >>{out}; echo to the log; echo and this >&2")
    second = Step("second", Mode.USER, script=f"#!/usr/bin/env -S sed -n '2s/x/two/w {out}2'\nx\n")
    assert provisioned(first, second) == ["first", "second"]
    assert out.read_text() == f"one web {'/' if os.geteuid() == 0 else Path.cwd()}\n"
    assert "first: exit code 0\nto the log\nand this\n" in log(web)
    assert users == ["root", "docker"]
    assert provisioned(first, second) == []
    assert provisioned(Step("renamed", timeout=9, script=first.script), second) == []
    assert provisioned(Step("first", script=first.script + " "), second) == ["first"]
    assert (web.folder / "project.json").stat().st_mode & 0o777 == 0o600
    assert (web.folder / provisioning.LOG).stat().st_mode & 0o777 == 0o600


def test_a_run_goes_on_at_the_step_that_failed(web: Instance, provisioned: Provisioned, tmp_path: Path) -> None:
    flag, out = tmp_path / "flag", tmp_path / "out"
    steps = (
        Step("one", script=f"echo 1 >>{out}"),
        Step("two", script=f"echo because; test -e {flag} && echo 2 >>{out} || exit 3"),
        Step("three", script=f"echo 3 >>{out}"),
    )
    with pytest.raises(MachineError, match="two failed with exit code 3") as raised:
        provisioned(*steps)
    assert raised.value.details == "because"
    assert raised.value.hint == "machine logs --provision web"
    assert "two: exit code 3\nbecause\n" in log(web)
    flag.touch()
    assert provisioned(*steps) == ["two", "three"]
    assert out.read_text() == "1\n2\n3\n"


def test_a_step_that_takes_too_long_is_ended(web: Instance, provisioned: Provisioned) -> None:
    with pytest.raises(MachineError, match="slow took longer than 1 s") as raised:
        provisioned(Step("slow", timeout=1, script="echo begun; exec sleep 600"))
    assert raised.value.details == "begun"


def test_what_runs_at_each_boot_runs_after_the_next_one(web: Instance, provisioned: Provisioned) -> None:
    steps = (Step("boot", Mode.BOOT, script="true"), Step("once", script="true"))
    assert provisioned(*steps) == ["boot", "once"]
    assert provisioned(*steps) == []
    provisioning.begin(web.folder)
    assert provisioned(*steps) == ["boot"]


def test_files_and_folders_are_copied(web: Instance, provisioned: Provisioned, tmp_path: Path) -> None:
    source = tmp_path / "conf"
    (source / "a").mkdir(parents=True)
    (source / "a/x").write_text("x")
    (source / "run").write_text("y")
    (source / "run").chmod(0o755)
    target = tmp_path / "there/deep"
    user = f"{os.getuid()}:{os.getgid()}"
    whole = Step("folder", source=str(source), target=str(target), owner=user)
    single = Step("file", Mode.USER, source=str(source / "a/x"), target=str(tmp_path / "y"), permissions="0600")
    assert provisioned(whole, single) == ["folder", "file"]
    assert (target / "a/x").read_text() == "x"
    assert (target / "run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o600
    assert provisioned(whole, single) == []
    (source / "a/x").write_text("z")
    assert provisioned(whole, single) == ["folder", "file"]
    assert (target / "a/x").read_text() == "z"
    shutil.rmtree(source)
    with pytest.raises(CheckFailed, match="there is no file"):
        provisioned(whole)


def test_a_copy_that_fails_says_why(web: Instance, provisioned: Provisioned, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="copy failed with exit code") as raised:
        provisioned(Step("copy", source=str(tmp_path / "file"), target=f"{tmp_path}/file/below"))
    assert "file" in raised.value.details


def test_probes_are_asked_until_they_succeed_and_once(
    web: Instance, provisioned: Provisioned, users: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    good = Probe("good", f"echo >>{out}; test $(wc -l <{out}) -ge 2")
    provisioned(probes=(good,))
    provisioning.probe(web, Silent())
    assert len(users) == 2
    provisioning.probe(web, Silent())
    assert len(users) == 2
    assert record.read(web.folder).probed == probed((good,))
    provisioning.begin(web.folder)
    provisioning.probe(web, Silent())
    assert len(users) == 3


def test_a_probe_that_fails_has_its_hint(web: Instance, provisioned: Provisioned) -> None:
    bad = Probe("the daemon", "echo not yet; exit 4", hint="look at its log", timeout=1)
    provisioned(probes=(bad,))
    with pytest.raises(WaitTimeout, match="waiting for the daemon") as raised:
        provisioning.probe(web, Silent())
    assert raised.value.hint == "look at its log"
    assert "exit code 4" in raised.value.details
    assert "not yet" in raised.value.details
    assert record.read(web.folder).probed == ""


def test_the_log_begins_anew_when_it_is_long(
    web: Instance, provisioned: Provisioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioning, "_LOG_LIMIT", 10)
    provisioned(Step("one", script="echo first"))
    provisioned(Step("two", script="echo second"))
    assert "first" not in log(web)
    assert "first" in (web.folder / f"{provisioning.LOG}.1").read_text()


def test_a_damaged_record_is_an_empty_one(web: Instance) -> None:
    for text in ("{", "[]", '{"file": "x", "bogus": 1}', '{"file": "x", "steps": [{}]}'):
        (web.folder / record.FILE).write_text(text)
        assert record.read(web.folder) == Record()
