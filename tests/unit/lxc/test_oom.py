"""What the kernel's log tells of a container whose memory ran out."""

import os
from pathlib import Path

import pytest
from fake_lxc import UUID, Recorder
from machine.drivers.lxc import Lxc, layout, oom

OTHER = "00000000-0000-4000-8000-000000000002"


def line(when: int, task: str, uuid: str = UUID, group: str = "") -> str:
    """As Linux 6.18 writes it. group: the end of the name of the group whose limit was reached."""
    groups = f"oom_memcg=/lxc.payload.{uuid}{group},task_memcg=/lxc.payload.{uuid}/docker/0ab1"
    text = f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=0ab1,mems_allowed=0,{groups}"
    return f"6,1803,{when},-;{text},task={task},pid=3221,uid=1879048192\n"


def write(log: Path, text: str) -> None:
    log.write_text(text, encoding="ascii")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file stands for the log: one record a read."""
    file = tmp_path / "kmsg"
    file.touch()
    monkeypatch.setattr(oom, "KERNEL_LOG", file)
    monkeypatch.setattr(oom, "_began", lambda process: 1_000_000)
    monkeypatch.setattr(oom, "_records", lambda descriptor: iter(file.read_bytes().splitlines(keepends=True)))
    return file


def test_the_last_program_is_named(log: Path) -> None:
    write(log, line(2_000_000, "java") + line(3_000_000, "tail, or so", group="-1"))
    assert oom.warning("dev", UUID, 1) == (
        "its memory ran out: 2 programs were killed, tail, or so last; give it more: machine set --memory SIZE dev"
    )
    write(log, line(2_000_000, "java"))
    assert "java was killed" in oom.warning("dev", UUID, 1)


def test_only_this_run_of_this_machine_counts(log: Path) -> None:
    write(log, "6,1,2,-;br0: port 1(a) entered disabled state\n" + line(999_999, "java") + line(2_000_000, "a", OTHER))
    assert oom.warning("dev", UUID, 1) == ""


def test_a_container_s_own_limit_is_docker_s_to_report(log: Path) -> None:
    write(log, line(2_000_000, "java", group="/docker/0ab1"))
    assert oom.warning("dev", UUID, 1) == ""


def test_a_log_that_cannot_be_read_tells_nothing(log: Path) -> None:
    log.unlink()
    assert oom.warning("dev", UUID, 1) == ""


def test_a_process_began_after_the_boot() -> None:
    assert 0 < oom._began(os.getpid()) < float(Path("/proc/uptime").read_text(encoding="ascii").split()[0]) * 1_000_000


def test_the_log_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"6,1,2,-;one\n")
    assert list(oom._records(reader)) == [b"6,1,2,-;one\n"]
    os.close(writer)
    assert list(oom._records(reader)) == []
    os.close(reader)


def test_the_driver_warns_of_it_while_it_runs(lxc: Lxc, recorder: Recorder, log: Path) -> None:
    write(log, line(2_000_000, "java"))
    recorder.state = "RUNNING"
    layout.Layout(UUID).folder.mkdir(parents=True)
    assert [text for text in lxc.warnings() if "java was killed" in text]
    recorder.state = "STOPPED"
    assert lxc.warnings() == []
