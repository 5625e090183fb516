from __future__ import annotations

from pathlib import Path

import pytest

from machine.guest import oom
from machine.paths import MachineFolder

# As Linux 6.12 wrote them on a console.
KILLED = (
    b"[   93.413577] Out of memory: Killed process 1071 (awk) total-vm:33992kB, anon-rss:32896kB, file-rss:0kB, "
    b"shmem-rss:0kB, UID:0 pgtables:104kB oom_score_adj:0\r\n"
)
IN_CONTAINER = KILLED.replace(b"Out of memory", b"Memory cgroup out of memory")


@pytest.fixture
def folder(tmp_path: Path) -> MachineFolder:
    return MachineFolder(tmp_path)


def test_a_machine_without_a_console_or_with_a_quiet_one(folder: MachineFolder) -> None:
    assert oom.warning(folder) == ""
    folder.console.write_bytes(b"machineos: [ 3.1] docker is ready\r\n")
    assert oom.warning(folder) == ""


def test_a_container_at_its_own_limit_isnt_meant(folder: MachineFolder) -> None:
    folder.console.write_bytes(IN_CONTAINER)
    assert oom.warning(folder) == ""


def test_what_was_killed(folder: MachineFolder) -> None:
    folder.console.write_bytes(b"\xff\r\n" + KILLED)
    hint = f"give it more: machine set --memory SIZE {folder.name}"
    assert oom.warning(folder) == f"its memory ran out: awk (32 MiB) was killed; {hint}"
    other = KILLED.replace(b"(awk)", b"(a b) c)").replace(b"rss:32896kB", b"rss:2097152kB", 1)
    folder.console.write_bytes(KILLED + IN_CONTAINER + other.replace(b"memory:", b"memory (oom_kill_allocating_task):"))
    assert oom.warning(folder) == f"its memory ran out: 2 programs were killed, a b) c (2 GiB) last; {hint}"


def test_only_the_end_of_a_long_console_is_read(folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom, "_TAIL", 100)
    folder.console.write_bytes(KILLED + b"x" * 100)
    assert oom.warning(folder) == ""
