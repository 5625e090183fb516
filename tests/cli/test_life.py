import io
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_fixtures import ended, vm_of
from filelock import FileLock

from machine import spec, store
from machine.driver import State
from machine.paths import MachineFolder
from tests.fixture_types import Add, Begin, Invoke, Outcome


def test_stop_start_kill_restart(invoke: Invoke, dev: MachineFolder) -> None:
    for verb, line, state in (
        ("start", "is already running", State.RUNNING),
        ("stop", "was stopped", State.STOPPED),
        ("stop", "is already stopped", State.STOPPED),
        ("kill", "is already stopped", State.STOPPED),
        ("start", "was started", State.RUNNING),
        ("kill", "was killed", State.STOPPED),
        ("restart", "was restarted", State.RUNNING),
        ("restart", "was restarted", State.RUNNING),
    ):
        shown = invoke(verb, "dev")
        assert (shown.code, shown.out) == (0, f'Machine "dev" {line}.\n'), verb
        assert vm_of(dev).read_text(encoding="utf-8") == state


def test_the_address_stays_over_a_restart(invoke: Invoke, dev: MachineFolder) -> None:
    before = store.load("dev")
    invoke("restart", "dev")
    assert store.load("dev") == before


def test_quiet(invoke: Invoke, dev: MachineFolder) -> None:
    for verb in ("stop", "start", "restart", "kill"):
        assert invoke(verb, "--quiet", "dev") == Outcome(0, "", "")
    assert invoke("rm", "-f", "-q", "dev") == Outcome(0, "", "")


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "restart"])
def test_without_a_name_the_default_machine_is_meant(invoke: Invoke, vms: Path, verb: str) -> None:
    shown = invoke(verb)
    assert shown.code == 2
    assert 'No machine name(s) specified and no "default" machine exists' in shown.err
    invoke("create", "-q")
    assert invoke(verb).code == 0


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "restart", "rm -y"])
@pytest.mark.parametrize("name", ["../dev", "", ".", "x" * 300])
def test_a_bad_name_is_a_usage_error(invoke: Invoke, add: Add, store: Path, verb: str, name: str) -> None:
    add("default", state="Running")
    shown = invoke(*verb.split(), "--", name)
    assert (shown.code, shown.out) == (2, "")
    assert "invalid name" in shown.err or "63 are allowed" in shown.err
    assert (store / "fake" / "default").read_text() == "Running"


@pytest.mark.parametrize("verb", ["start", "stop", "kill", "restart", "rm -y"])
def test_a_machine_that_isnt_there_stops_the_verb_before_it_acts(
    invoke: Invoke, add: Add, store: Path, verb: str
) -> None:
    add("a", state="Running")
    shown = invoke(*verb.split(), "a", "ghost")
    assert shown.code == 1
    assert 'Docker machine "ghost" does not exist' in shown.err
    assert "Next: machine ls" in shown.err
    assert (store / "fake" / "a").read_text() == "Running"


def test_several_at_once(invoke: Invoke, add: Add, store: Path) -> None:
    for name in "abcdef":
        add(name, state="Running")
    shown = invoke("stop", "a", "b", "c", "d", "e", "f", "a")
    assert shown.code == 0
    assert sorted(shown.lines) == [f'Machine "{name}" was stopped.' for name in "abcdef"]


def test_one_that_fails_stops_no_other(invoke: Invoke, add: Add, store: Path) -> None:
    add("a", state="Running", options={"fails": "stop"})
    add("b", state="Running")
    shown = invoke("stop", "--timeout", "1", "a", "b")
    assert shown.code == 1
    assert shown.out == 'Machine "b" was stopped.\n'
    assert "Error: a: timed out after 1 s waiting for the machine to shut down" in shown.err
    assert "Next: machine kill a" in shown.err
    assert (store / "fake" / "a").read_text() == "Running"


def test_ctrl_c_ends_a_wait(begin: Begin, add: Add, vms: Path) -> None:
    for names in (["a"], ["a", "b"]):
        for name in names:
            if not store.exists(name):
                add(name, state="Running", options={"fails": "stop"})
        process = begin("stop", *names)
        assert process.stderr
        for _ in names:
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
        assert (code, out, err.strip()) == (130, "", "interrupted")
        with FileLock(store.folder_of("a").lock, timeout=0):
            pass


def test_two_commands_dont_work_on_one_machine(
    invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with FileLock(store.folder_of("dev").lock):
        for verb in (["stop"], ["rm", "-f"]):
            shown = invoke(*verb, "dev")
            assert shown.code == 1
            assert 'another command is using the machine "dev"' in shown.err
    assert vm_of(dev).read_text(encoding="utf-8") == State.RUNNING


def test_two_that_start_the_same_machine_both_find_it_running(begin: Begin, dev: MachineFolder, invoke: Invoke) -> None:
    invoke("stop", "dev")
    ends = [ended(process) for process in [begin("start", "-q", "dev") for _ in range(2)]]
    assert [code for code, _, _ in ends] == [0, 0]


def test_two_that_remove_the_same_machine(begin: Begin, dev: MachineFolder) -> None:
    ends = [ended(process) for process in [begin("rm", "-f", "dev") for _ in range(3)]]
    assert all(code == 0 or "does not exist" in err for code, _, err in ends), ends
    assert store.names() == []
    assert not vm_of(dev).exists()


def test_rm_removes_nothing_without_an_answer(
    invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    shown = invoke("rm", "dev")
    assert shown.code == 2
    assert "there was no answer, so nothing was done" in shown.err
    assert "machine rm -y dev" in shown.err
    assert vm_of(dev).exists()


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_rm_asks_on_stderr_where_stdout_is_for_programs(
    invoke: Invoke, dev: MachineFolder, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    shown = invoke("rm", option, "dev")
    assert shown.err.endswith("Are you sure? (y/n): ")
    assert shown.out in {
        "",
        '[\n    {\n        "name": "dev",\n        "result": "Successfully removed dev"\n    }\n]\n',
    }
    assert not vm_of(dev).exists()


@pytest.mark.parametrize(
    ("answer", "removed"), [("y\n", True), ("Yes", True), ("n\n", False), ("\n", False), ("ok\n", False)]
)
def test_rm_does_what_is_answered(begin: Begin, dev: MachineFolder, answer: str, removed: bool) -> None:
    """On a pipe, as scripts for docker-machine answer."""
    process = begin("rm", "dev", stdin=subprocess.PIPE)
    out, err = process.communicate(answer, timeout=200)
    assert (process.returncode, err) == (0, "" if not removed else err)
    assert out.startswith("About to remove dev\nWARNING: ")
    assert "Are you sure? (y/n): " in out
    assert store.exists("dev") is not removed


@pytest.mark.parametrize("flag", ["-y", "-f", "--force"])
def test_rm_leaves_nothing(invoke: Invoke, dev: MachineFolder, flag: str) -> None:
    shown = invoke("rm", flag, "dev")
    assert (shown.code, shown.out) == (0, "Successfully removed dev\n")
    assert not vm_of(dev).exists()
    assert [path.name for path in store.folder().iterdir()] == [".lock"]


def test_rm_needs_a_name(invoke: Invoke, add: Add) -> None:
    add("default")
    assert invoke("rm", "-f").code == 2
    assert store.names() == ["default"]


def test_rm_by_force_of_what_isnt_there_succeeds(invoke: Invoke, store: Path) -> None:
    assert invoke("rm", "-f", "ghost") == Outcome(0, "", "")


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "truncated": b'{"format": 1, "name": "de',
    "binary": b"\xff\xfe\x00",
    "foreign": b'{"ConfigVersion": 3, "Driver": {}}',
    "list": b"[]",
    "newer": json.dumps({"format": 99, "name": "dev"}).encode(),
    "other-types": json.dumps({"format": 1, "name": 3}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_machine_is_reported_by_name_and_hides_no_other(
    invoke: Invoke, dev: MachineFolder, add: Add, damage: str
) -> None:
    add("web", state="Running")
    config = store.folder_of("dev").config
    config.write_bytes(DAMAGE[damage])
    for verb in (["start"], ["stop"], ["kill"], ["restart"], ["rm", "-y"]):
        shown = invoke(*verb, "dev")
        assert shown.code == 1, verb
        assert str(config) in shown.err
        assert "Traceback" not in shown.err
    assert invoke("stop", "web").code == 0
    assert "web" in invoke("ls", "-q").lines
    assert config.read_bytes() == DAMAGE[damage]
    assert invoke("create", "dev").code == 1
    shown = invoke("rm", "-f", "dev")
    assert (shown.code, shown.out) == (0, "Successfully removed dev\n")
    assert not vm_of(dev).exists()
    assert invoke("create", "-q", "dev").code == 0


def test_a_machine_whose_driver_is_gone(invoke: Invoke, dev: MachineFolder) -> None:
    store.save(replace(store.load("dev"), driver="gone"))
    shown = invoke("stop", "dev")
    assert shown.code == 2
    assert 'there is no driver "gone"' in shown.err
    assert invoke("rm", "-y", "dev").code == 2
    shown = invoke("rm", "-f", "dev")
    assert shown.code == 0
    assert 'the virtual machine may still exist: there is no driver "gone"' in shown.err


def test_a_name_in_machine_json_that_isnt_the_folders(invoke: Invoke, dev: MachineFolder, add: Add) -> None:
    # As after `cp -r dev copy`: what is done to the copy mustn't be done to the machine.
    copy = store.folder_of("copy")
    copy.path.mkdir()
    copy.config.write_text(spec.dumps(store.load("dev")))
    for verb in (["stop"], ["kill"], ["rm", "-y"]):
        shown = invoke(*verb, "copy")
        assert shown.code == 1
        assert 'belongs to the machine "dev"' in shown.err
    assert vm_of(dev).read_text(encoding="utf-8") == State.RUNNING
    assert invoke("rm", "-f", "copy").code == 0
    assert vm_of(dev).read_text(encoding="utf-8") == State.RUNNING
    assert store.names() == ["dev"]


def test_start_within_a_time(invoke: Invoke, dev: MachineFolder) -> None:
    invoke("stop", "dev")
    store.save(replace(store.load("dev"), options={"fails": "boot"}))
    began = time.monotonic()
    shown = invoke("start", "--timeout", "1", "dev")
    assert shown.code == 1
    assert "timed out after 1 s" in shown.err
    assert time.monotonic() - began < 120
    # It stays as it is, for the user to look at.
    assert vm_of(dev).read_text(encoding="utf-8") == State.RUNNING


def test_threads_are_not_left(invoke: Invoke, dev: MachineFolder) -> None:
    before = set(threading.enumerate())
    invoke("restart", "dev")
    # A thread of an earlier test may end meanwhile: only one that this call began and left counts.
    assert set(threading.enumerate()) <= before


class Pieces(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


def test_lines_of_several_machines_dont_run_together(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine has a thread: what it prints goes out in one piece, the newline included."""
    add("a")
    add("b")
    out, err = Pieces(), Pieces()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert invoke("rm", "-y", "a", "b").code == 0
    told = [piece for piece in out.pieces + err.pieces if "remov" in piece and "About" not in piece]
    assert len(told) == 4
    assert all(piece.count("\n") == 1 and piece.endswith("\n") for piece in told)
