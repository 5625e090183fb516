from pathlib import Path
from typing import Any

import pytest
from fake_qmp import HANG_UP, monitor
from machine.drivers.qemu import migration
from machine.drivers.qemu.qmp import Qmp

from machine.errors import DriverFailed, WaitTimeout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


def in_turn(*answers: dict[str, Any]) -> Any:
    """Answers a command with one after another, and then always with the last."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


IGNORE_SHARED = {"capability": "x-ignore-shared", "state": True}
MIGRATION = [
    {
        "execute": "migrate-set-capabilities",
        "arguments": {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
    },
    {"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": migration.BANDWIDTH}},
    {"execute": "getfd", "arguments": {"fdname": "state"}},
]


def test_save(path: Path, tmp_path: Path) -> None:
    status = in_turn({}, {"status": "active"}, {"status": "completed"})
    with monitor(path, {"query-migrate": status}) as server, Qmp(path) as qmp:
        migration.save(qmp, tmp_path / "state", without_memory=True)
    assert server.commands[:2] == ["qmp_capabilities", "stop"]
    assert server.asked[2:5] == MIGRATION
    assert server.asked[5] == {"execute": "migrate", "arguments": {"uri": "fd:state"}}
    assert server.commands[6:] == ["query-migrate"] * 3
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600


def test_load(path: Path, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    answers = {
        "query-migrate": {"status": "completed"},
        "query-status": in_turn({"status": "inmigrate"}, {"status": "paused"}),
    }
    with monitor(path, answers) as server, Qmp(path) as qmp:
        migration.load(qmp, tmp_path / "state", without_memory=True)
    assert server.asked[1:4] == MIGRATION
    assert server.asked[4] == {"execute": "migrate-incoming", "arguments": {"uri": "fd:state"}}
    assert server.commands[5:-1] == ["query-migrate", "query-status", "query-status"]
    # A snapshot of this QEMU would carry it, and another would refuse to load it.
    assert server.asked[-1]["arguments"] == {"capabilities": [{"capability": "x-ignore-shared", "state": False}]}


NEW = {"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 0}, "package": ""}, "capabilities": []}}


@pytest.mark.parametrize(("major", "minor", "file"), [(7, 2, False), (8, 1, False), (8, 2, True), (10, 0, True)])
def test_newer_ones_write_to_files(path: Path, tmp_path: Path, major: int, minor: int, file: bool) -> None:
    version = {"QMP": {"version": {"qemu": {"major": major, "minor": minor}}}}
    answers = {"query-migrate": {"status": "completed"}, "add-fd": {"fdset-id": 3, "fd": 20}}
    with monitor(path, answers, version) as server, Qmp(path) as qmp:
        migration.save(qmp, tmp_path / "state")
    uris = [message["arguments"]["uri"] for message in server.asked if message["execute"] == "migrate"]
    assert uris == ["file:/dev/fdset/3" if file else "fd:state"]
    assert ("add-fd" in server.commands, "getfd" in server.commands) == (file, not file)


def test_a_newer_one_loads_from_a_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    answers = {
        "add-fd": {"fdset-id": 1, "fd": 20},
        "query-migrate": {"status": "completed"},
        "query-status": {"status": "paused"},
    }
    with monitor(path, answers, NEW) as server, Qmp(path) as qmp:
        migration.load(qmp, tmp_path / "state")
    assert {"execute": "migrate-incoming", "arguments": {"uri": "file:/dev/fdset/1"}} in server.asked
    assert {"execute": "remove-fd", "arguments": {"fdset-id": 1}} in server.asked


def test_a_newer_one_keeps_no_file_that_it_failed_to_write(path: Path, tmp_path: Path) -> None:
    answers = {"query-migrate": {"status": "failed"}, "add-fd": {"fdset-id": 0, "fd": 20}}
    with monitor(path, answers, NEW) as server, Qmp(path) as qmp, pytest.raises(migration.Refused):
        migration.save(qmp, tmp_path / "state")
    assert server.asked[-1] == {"execute": "remove-fd", "arguments": {"fdset-id": 0}}


@pytest.mark.parametrize("status", [{"status": "failed", "error-desc": "no space"}, {"status": "cancelled"}])
def test_a_state_that_cant_be_saved(path: Path, tmp_path: Path, status: dict[str, str]) -> None:
    with monitor(path, {"query-migrate": status}), Qmp(path) as qmp, pytest.raises(DriverFailed) as caught:
        migration.save(qmp, tmp_path / "state")
    assert caught.value.message.endswith(status.get("error-desc", "cancelled"))


def test_a_save_without_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "DEADLINE", 0.05)
    late = pytest.raises((DriverFailed, WaitTimeout), match="state")
    with monitor(path, {"query-migrate": {"status": "active"}}), Qmp(path) as qmp, late:
        migration.save(qmp, tmp_path / "state")


def test_a_qemu_that_goes_away_is_an_error_of_ours(path: Path, tmp_path: Path) -> None:
    # A broken pipe that isn't explained is taken for a closed stdout by the command line, which then says nothing.
    gone = pytest.raises(DriverFailed, match="closed")
    with monitor(path, {"migrate-set-parameters": [{"return": {}}, HANG_UP]}), Qmp(path) as qmp, gone:
        migration.save(qmp, tmp_path / "state")
