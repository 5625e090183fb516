"""What goes wrong while a machine is made, with real processes: the reason is said, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.testbed import Store, monitor, taken, until

# Small and without a template: these machines never get far.
SMALL = ("--cold", "--memory", "512", "--cpus", "1", "--disk", "2G")


@pytest.mark.parametrize(
    "phase",
    ["making the virtual machine", "preparing its keys", "starting the virtual machine", "waiting for Docker"],
    ids=lambda phase: phase.split()[0],
)
def test_interrupted(store: Store, phase: str) -> None:
    with store.begun("create", *SMALL, "dev") as create:
        create.says(phase)
        create.interrupt()
        ended = create.end(60)
    assert ended.code == 130, ended
    assert ended.err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in ended.err
    store.assert_nothing_left()


def test_interrupted_while_the_kernel_boots(store: Store) -> None:
    with store.begun("create", *SMALL, "dev") as create:
        until(lambda: _console(store, "dev"), "the guest's first line", 120)
        create.interrupt()
        ended = create.end(60)
    assert (ended.code, "Traceback" in ended.err) == (130, False), ended
    store.assert_nothing_left()


def test_interrupted_while_the_template_is_made(store: Store) -> None:
    """Without --cold the first machine of its kind boots a template: its QEMU must go as well."""
    with store.begun("create", "--memory", "512", "--cpus", "1", "dev") as create:
        until(lambda: _qemus(store), "a QEMU", 120)
        create.interrupt()
        ended = create.end(60)
    assert (ended.code, "Traceback" in ended.err) == (130, False), ended
    store.assert_nothing_left()


@pytest.mark.parametrize("option", ["--cold", "--no-tls"], ids=["cold", "template"])
def test_a_killed_create_is_swept_by_the_next_command(store: Store, option: str) -> None:
    with store.begun("create", option, "--memory", "512", "--cpus", "1", "dev") as create:
        until(lambda: _qemus(store), "a QEMU", 120)
        os.kill(create.process.pid, signal.SIGKILL)
        create.end()
    assert _qemus(store), "QEMU should outlive a killed create: else this test shows nothing"
    listed = store.machine("ls")
    assert "interrupted" in listed.err
    assert len(listed.lines) == 1  # the heading
    store.assert_nothing_left()


def test_too_short_a_timeout(store: Store) -> None:
    ended = store.machine("create", *SMALL, "--timeout", "6", "dev", code=1, timeout=60)
    assert "Error: timed out after 6 s waiting for Docker to answer on tcp://127.77." in ended.err
    assert "the hypervisor says: Running" in ended.err
    assert "\nNext: " in ended.err
    store.assert_nothing_left()


def test_a_guest_that_hangs(store: Store) -> None:
    """Its processors are stopped: connections are taken, and nothing ever answers."""
    with store.begun("create", *SMALL, "--timeout", "30", "dev") as create:
        until(lambda: _console(store, "dev"), "the guest's first line", 120)
        monitor(store.folder_of("dev"), "stop")
        store.machine("ls", "--timeout", "2", timeout=60)
        ended = create.end(60)
    assert ended.code == 1, ended
    assert "waiting for Docker to answer" in ended.err
    assert "Paused" in ended.err
    assert "console: " in ended.err
    store.assert_nothing_left()


@pytest.mark.parametrize("options", [SMALL, ("--memory", "512", "--cpus", "1")], ids=["cold", "template"])
def test_an_image_with_one_wrong_bit(images: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    # Without the root that system containers have unpacked: it is large, and has links to what isn't there.
    shutil.copytree(images, tmp_path / "images", ignore=shutil.ignore_patterns("unpacked"))
    digest = (images / "machineos").read_text().strip()
    with (tmp_path / "images" / digest / "image").open("r+b") as image:
        image.seek(40_000_000)
        before = image.read(1)[0]
        image.seek(40_000_000)
        image.write(bytes([before ^ 1]))
    with contextlib.closing(Store(tmp_path / "images")) as store:
        ended = store.machine("create", *options, "dev", code=3)
        assert f"{digest}/image is damaged" in ended.err
        assert f"Next: machine iso rm {digest[:12]}" in ended.err
        assert "starting the virtual machine" not in ended.err
        assert not (store.folder / "templates").exists()


@pytest.fixture
def tiny(images: Path) -> Iterator[Store]:
    """A store on a disk of 80 MB."""
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root only")
    folder = Path("/tmp/mvm-tiny")
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], check=True)
        try:
            yield Store(images, folder)
        finally:
            subprocess.run(["umount", folder], check=True)
    finally:
        folder.rmdir()


def test_a_disk_that_is_full(tiny: Store) -> None:
    (tiny.folder / "filler").write_bytes(bytes(40 << 20))
    ended = tiny.machine("create", *SMALL, "dev", code=3)
    assert f"MiB are free in {tiny.folder}" in ended.err
    assert "Hint: make room" in ended.err
    tiny.assert_nothing_left()


def test_a_disk_that_fills_while_the_machine_boots(tiny: Store) -> None:
    with tiny.begun("create", *SMALL, "--timeout", "90", "dev") as create:
        create.says("waiting for Docker")
        with contextlib.suppress(OSError), (tiny.folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 16))
        ended = create.end()
    assert ended.code == 1, ended
    assert f"the host's disk is full, the one that holds {tiny.folder_of('dev')}" in ended.err, ended
    tiny.assert_nothing_left()


def test_a_port_that_is_taken_means_another_address(store: Store) -> None:
    with store.begun("create", *SMALL, "dev") as create:
        create.says("waiting for Docker")
        first = _address(create.text())
        create.interrupt()
        create.end(60)
    with taken(first, 2375), store.begun("create", *SMALL, "dev") as create:
        create.says("waiting for Docker")
        second = _address(create.text())
        create.interrupt()
        create.end(60)
    assert first.rpartition(".")[0] == second.rpartition(".")[0]
    assert first != second


def _address(progress: str) -> str:
    return progress.rpartition("tcp://")[2].partition(":")[0]


def _console(store: Store, name: str) -> str:
    try:
        return (store.folder_of(name) / "console.log").read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _qemus(store: Store) -> list[psutil.Process]:
    found = []
    for process in store.processes():
        with contextlib.suppress(psutil.Error):
            if "-pidfile" in process.cmdline():
                found.append(process)
    return found
