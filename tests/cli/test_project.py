"""machine init, plan, up, down and schema, with the driver `fake`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_fixtures import vm_of

from machine import ssh
from machine import store as stores
from machine.images import cache
from machine.run import Completed
from machine.spec import State
from tests.fixture_types import Invoke, Outcome, Spawn

Project = Callable[[str], Path]


@pytest.fixture
def project(vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Write machine.yaml into the folder `shop`, which is the working directory."""
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def write(text: str) -> Path:
        (folder / "machine.yaml").write_text(text, encoding="utf-8")
        return folder

    return write


def state(name: str) -> str:
    return vm_of(stores.folder_of(name)).read_text()


def test_a_project_from_init_to_down(invoke: Invoke, project: Project) -> None:
    shown = invoke("init")
    assert shown.out == "Wrote machine.yaml and machine.schema.json. See what it makes: machine plan\n"
    assert json.loads(Path("machine.schema.json").read_text(encoding="utf-8")) == json.loads(invoke("schema").out)
    assert "is there already" in invoke("init").err
    plan = invoke("plan")
    assert plan.code == 0, plan.err
    assert "+ shop is made: driver fake, 2 GiB of memory, 2 CPUs, a disk of up to 20 GiB" in plan.lines
    assert "    boots the image machineos, which is in the cache" in plan.lines
    assert invoke("plan", "--check").code == 2
    made = invoke("up")
    assert (made.code, made.out) == (0, 'Machine "shop" was made.\n')
    assert stores.load("shop").project == "shop"
    assert invoke("up").out == "The project shop is as machine.yaml says: there is nothing to do.\n"
    assert invoke("plan", "--check").code == 0
    assert invoke("down").out == 'Machine "shop" was stopped.\n'
    assert invoke("plan", "--check").code == 2
    assert invoke("up").out == 'Machine "shop": It was started.\n'
    assert invoke("down", "--rm", "-y").out == "Successfully removed shop\n"
    assert stores.names() == []


def test_a_changed_file_changes_machines(invoke: Invoke, project: Project) -> None:
    project("machines: {web: {memory: 512M, cpus: 1, disk: 2G, fake-words: [a]}, old: }")
    assert invoke("up", "-q").code == 0
    project("machines: {web: {memory: 1G, cpus: 1, disk: 1G, fake-words: [b]}, new: {memory: 512}}")
    lines = invoke("plan").lines[1:]
    assert [line for line in lines if not line.startswith("    writes")] == [
        "~ web is changed, at once where its driver can, else at its next start",
        "    memory: 512 MiB -> 1 GiB",
        "! web can't be changed in this: machine up --recreate web",
        "    fake-words: a -> b",
        "    disk: it can't shrink to 1G",
        "+ new is made: driver fake, 512 MiB of memory, 2 CPUs, a disk of up to 20 GiB",
        "    boots the image machineos, which is in the cache",
        "    opens ports on an address 127.77.x.y of its own: 2375, 22, and what containers publish",
        "    shares no folder",
        "- old: it isn't in the file; machine up --prune removes it",
        "1 to make, 1 to change, start or provision, 1 that can't be changed, 1 to remove with --prune: machine up",
    ]
    found = json.loads(invoke("plan", "--json").out)
    assert [(one["name"], one["action"]) for one in found] == [("web", "change"), ("new", "create"), ("old", "remove")]
    shown = invoke("up")
    assert 'Machine "web": Memory changed now.\n' in shown.out
    assert "web can't be changed in this: fake-words: a -> b; disk: it can't shrink to 1G" in shown.err
    assert stores.load("web").memory_mib == 1024
    assert stores.names() == ["new", "old", "web"]
    assert "! web" in invoke("plan").out  # it is said again
    assert invoke("up", "--recreate", "web", "--prune", "-y").code == 0
    assert stores.names() == ["new", "web"]
    assert (stores.load("web").options, stores.load("web").disk_mib) == ({"word": ("b",)}, 1024)
    assert invoke("plan", "--check").code == 0


def test_what_set_changed_stays_where_the_file_says_nothing(invoke: Invoke, project: Project) -> None:
    project("machines: {web: {cpus: 1}}")
    invoke("up", "-q")
    assert invoke("set", "--memory", "512M", "web").code == 0
    assert invoke("plan", "--check").code == 0
    invoke("set", "--cpus", "3", "web")
    assert "    cpus: 3 -> 1" in invoke("plan").lines


def test_a_stopped_machine_is_changed_before_it_starts(invoke: Invoke, project: Project) -> None:
    project("machines: {web: {engine-label: [a=1]}}")
    invoke("up", "-q")
    invoke("down", "-q")
    project("machines: {web: {engine-label: [a=2, b=1], host: [x.test=10.0.0.1], no-host-network-ports: true}}")
    assert invoke("plan").lines[1:5] == [
        "~ web is changed, and is started",
        "    engine-label: +a=2, +b=1, -a=1",
        "    host: +x.test=10.0.0.1",
        "    no-host-network-ports: true",
    ]
    assert invoke("up").out == 'Machine "web": It was changed. It was started.\n'
    machine = stores.load("web")
    assert (machine.engine.labels, machine.hosts) == (("a=2", "b=1"), ("x.test=10.0.0.1",))
    assert not machine.host_network_ports
    invoke("down", "-q")
    project("machines: {web: }")  # what it said before goes
    invoke("up", "-q")
    machine = stores.load("web")
    assert (machine.engine.labels, machine.hosts, machine.host_network_ports) == ((), (), True)
    assert state("web") == State.RUNNING


def test_a_suspended_machine_continues(invoke: Invoke, project: Project) -> None:
    project("machines: {web: {memory: 512M}}")
    invoke("up", "-q")
    invoke("suspend", "web")
    assert invoke("down").out == 'Machine "web" is suspended.\n'
    assert "~ web continues" in invoke("plan").lines
    project("machines: {web: {memory: 1G}}")
    assert invoke("up").out == 'Machine "web": It was started. Memory changed now.\n'


def test_what_was_made_by_hand_is_never_touched(invoke: Invoke, project: Project, tmp_path: Path) -> None:
    invoke("create", "-q", "hand")
    project("machines: {web: }")
    assert invoke("up", "--prune", "-y").code == 0
    assert invoke("down", "--rm", "-y").code == 0
    assert stores.names() == ["hand"]
    project("machines: {hand: , web: }")
    shown = invoke("up")
    assert (shown.code, stores.names()) == (3, ["hand"])
    assert 'the name "hand" is taken: it was made by hand' in shown.err
    assert 'no machine "hand"' in invoke("down", "hand").err


def test_another_project_has_the_name(
    invoke: Invoke, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project("machines: {web: }")
    invoke("up", "-q")
    other = tmp_path / "other/shop"  # of the same name
    other.mkdir(parents=True)
    monkeypatch.chdir(other)
    (other / "machine.yaml").write_text("machines: {web: }")
    assert f'it belongs to the project "shop" of {folder}/machine.yaml' in invoke("up").err
    (other / "machine.yaml").write_text("machines: {db: }")
    assert invoke("up", "--prune", "-y", "-q").code == 0
    assert stores.names() == ["db", "web"]
    assert invoke("down", "--rm", "-y").out == "Successfully removed db\n"
    # A project that was moved keeps its machines.
    folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    Path("machine.yaml").write_text("name: shop\nmachines: {web: }", encoding="utf-8")
    assert invoke("plan", "--check").code == 0
    assert invoke("up").code == 0


def test_one_failure_leaves_the_others(invoke: Invoke, project: Project) -> None:
    project("machines: {a: {fake-fails: create}, b: }")
    shown = invoke("up")
    assert (shown.code, shown.out) == (1, 'Machine "b" was made.\n')
    assert "Error: a: the fake fails at create" in shown.err
    assert stores.names() == ["b"]
    project("machines: {a: , b: }")
    assert invoke("up").out == 'Machine "a" was made.\n'


def test_only_the_named_machines(invoke: Invoke, project: Project) -> None:
    project("machines: {web: {count: 2}, db: }")
    assert invoke("up", "-q", "web").code == 0
    assert stores.names() == ["web-1", "web-2"]
    assert invoke("up", "wbe").code == 2
    invoke("up", "-q")
    invoke("down", "-q", "db")
    assert [state(name) for name in ("db", "web-1")] == [State.STOPPED, State.RUNNING]


def test_nothing_is_removed_without_an_answer(
    invoke: Invoke, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("machines: {web: }")
    invoke("up", "-q")
    monkeypatch.setattr(sys, "stdin", None)
    assert invoke("down", "--rm").code == 2
    assert invoke("up", "--recreate", "web").code == 2
    assert stores.names() == ["web"]


def test_init_describes_a_machine(invoke: Invoke, project: Project) -> None:
    words = ("--memory", "1.5G", "--cpus", "1", "--engine-label", "a=1", "--fake-words", "x", "--tls-san", "a.test")
    invoke("create", "-q", *words, "--engine-env", "A=1", "--no-host-network-ports", "box")
    assert invoke("init", "--from", "box").code == 0
    invoke("rm", "-y", "box")
    before = invoke("plan")
    assert "+ box is made: driver fake, 1.5 GiB of memory, 1 CPUs, a disk of up to 20 GiB" in before.lines, before.err
    invoke("up", "-q")
    machine = stores.load("box")
    assert (machine.engine.labels, machine.tls_sans, machine.engine.environment) == (("a=1",), ("a.test",), ("A=1",))
    assert (machine.options, machine.host_network_ports) == ({"word": ("x",)}, False)
    assert machine.image == cache.current("machineos").digest


def test_the_file_of_init_is_right_when_its_comments_are_taken_in(invoke: Invoke, project: Project) -> None:
    invoke("init")
    file = Path("machine.yaml")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    file.write_text("\n".join(re.sub("^    # ", "    ", line) for line in lines), encoding="utf-8")
    plan = invoke("plan")
    assert (plan.code, len([line for line in plan.lines if line.startswith("+")])) == (0, 3), plan.err


def test_steps_run_and_a_second_up_goes_on(
    invoke: Invoke, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(
        folder: Any, _: Any, user: str, command: list[str], *, input: bytes | None = None, **more: Any
    ) -> Completed:
        line = command[0].removeprefix("sudo -n ")
        done = subprocess.run(["sh", "-c", line], input=input, capture_output=True, check=False)
        return Completed(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    monkeypatch.setattr(ssh, "run", run)
    out, flag = tmp_path / "out", tmp_path / "flag"
    text = f"""\
machines:
  web:
    provision:
      - {{script: "echo boot >>{out}", mode: boot, name: network}}
      - {{script: "echo words; test -e {flag}", name: packages}}
    probes: [{{command: "echo probe >>{out}", name: the server}}]
"""
    project(text)
    assert "    runs network, packages" in invoke("plan").lines
    shown = invoke("up")
    assert (shown.code, shown.out) == (1, "")
    assert "Error: packages failed with exit code 1; machine up goes on there\n  words\n" in shown.err
    assert "Next: machine logs --provision web" in shown.err
    assert "packages: exit code 1\nwords\n" in invoke("logs", "--provision", "web").out
    assert invoke("plan").lines[1:4] == ["~ web is provisioned", "    runs packages", "    waits for the server"]
    flag.touch()
    assert invoke("up").out == 'Machine "web": These steps ran: packages. It works.\n'
    assert out.read_text() == "boot\nprobe\n"
    assert "nothing to do" in invoke("up").out
    assert invoke("restart", "-q", "web").code == 0  # which runs the steps of a boot, too
    assert out.read_text() == "boot\nprobe\nboot\n"
    assert invoke("plan").lines[1:3] == ["~ web is asked whether it works", "    waits for the server"]
    assert invoke("up").out == 'Machine "web": It works.\n'
    invoke("down", "-q")
    assert "    runs network" in invoke("plan").lines
    assert invoke("up").out == 'Machine "web": It was started. These steps ran: network. It works.\n'
    assert out.read_text() == "boot\nprobe\nboot\nprobe\nboot\nprobe\n"


def test_ls_and_env_of_a_project(invoke: Invoke, project: Project, spawn: Spawn) -> None:
    folder = project("machines: {web: }")
    invoke("create", "-q", "hand")
    assert invoke("env", "--project").err.startswith("Error: no machine was made from")
    invoke("up", "-q")
    assert invoke("ls", "-q", "--project").out == "web\n"
    assert invoke("ls", "-q", "--filter", "project=shop").out == "web\n"
    below = folder / "src"
    below.mkdir()
    os.chdir(below)
    shown = spawn("env", "--project", python=("-X", "importtime"))
    assert 'export DOCKER_MACHINE_NAME="web"' in shown.out
    assert "machine env --project" in shown.out
    assert "yaml" not in {line.rpartition("|")[2].strip() for line in shown.err.splitlines()}
    assert invoke("env", "--project", "web").code == 2
    project("machines: {web: , db: }")
    invoke("up", "-q")
    assert "has 2 machines: db, web" in invoke("env", "--project").err
    os.chdir(folder.parent)
    assert invoke("ls", "--project").code == 3


def test_no_steps_where_there_is_no_ssh(invoke: Invoke, project: Project) -> None:
    project("machines: {web: {driver: none, url: 'tcp://127.0.0.1:9', provision: [{script: x}]}}")
    shown = invoke("up")
    assert (shown.code, stores.names()) == (3, [])
    assert "its driver none has no SSH" in shown.err
    assert invoke("logs", "--provision", "--follow").code == 2


def test_a_wrong_file_and_no_file(invoke: Invoke, project: Project) -> None:
    assert invoke("plan").code == 3
    project("machines: {web: {memroy: 1G}}")
    for verb in ("plan", "up"):
        shown: Outcome = invoke(verb)
        assert (shown.code, shown.out) == (3, "")
        assert 'machine.yaml:1:18: unknown key "memroy": did you mean "memory"?' in shown.err
    assert invoke("down").code == 0  # the name is all that it needs


def test_the_verbs_that_read_no_file_do_without_its_libraries(spawn: Spawn, project: Project) -> None:
    for words in (("ls",), ("env", "--unset")):
        shown = spawn(*words, python=("-X", "importtime"))
        assert shown.code == 0
        assert not {"yaml", "jsonschema"} & {line.rpartition("|")[2].strip() for line in shown.err.splitlines()}
