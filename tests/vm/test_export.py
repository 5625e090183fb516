"""A machine with data and a snapshot moves to another store, which has no images: 1 GiB in make test-full."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import testbed
from tests.testbed import Store, until
from tests.vm.conftest import Vm
from tests.vm.full import DATA_MIB

FILL = f"""set -e
dd if=/dev/urandom of=/tmp/a bs=1M count=64
for n in $(seq {DATA_MIB // 64}); do echo $n; cat /tmp/a; done >/data/big
echo before >/data/page
sync"""
# Bytes, of a file that is being written: it is interrupted then.
PART = DATA_MIB << 18
SUM = "sha256sum /data/big"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("images"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def written(vm: Vm) -> str:
    """What sha256sum says of a file in a volume. After it was written, a snapshot was taken, and then more written."""
    testbed.say(f"writing {DATA_MIB} MiB")
    in_volume(vm, FILL)
    told = in_volume(vm, SUM)
    vm.store.machine("snapshot", "create", vm.name, "then")
    in_volume(vm, "echo after >/data/page; sync")
    return told


def in_volume(vm: Vm, script: str) -> str:
    """Run it in a container that has the volume and room for 64 MiB in /tmp."""
    words = ("-v", "moved:/data", "--tmpfs", "/tmp:size=80m", "busybox", "sh", "-c", script)
    return vm.docker("run", "--rm", *words).out


def test_a_machine_that_is_not_off_is_refused(vm: Vm, written: str, tmp_path: Path) -> None:
    refused = vm.machine("export", tmp_path / "f", code=2)
    assert f"machine stop {vm.name}" in refused.err
    vm.machine("suspend")
    refused = vm.machine("export", tmp_path / "f", code=2)
    assert f"machine start {vm.name} && machine stop {vm.name}" in refused.err
    vm.machine("start")
    vm.machine("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_interrupted_leaves_nothing(vm: Vm, written: str, tmp_path: Path) -> None:
    before = sorted(vm.store.folder_of(vm.name).iterdir())
    with vm.store.begun("export", vm.name, str(tmp_path / "f")) as begun:
        until(lambda: size(tmp_path / ".f.part") > PART, "a part of the file")
        begun.interrupt()
        assert begun.end().code == 130
    assert list(tmp_path.iterdir()) == []
    assert sorted(vm.store.folder_of(vm.name).iterdir()) == before


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_it_moves_with_all_that_was_written(
    vm: Vm, written: str, elsewhere: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    told = vm.machine("export", file)
    assert "the memory of the snapshots then isn't moved" in told.err
    testbed.say(f"exported {file.stat().st_size >> 20} MiB in {told.seconds:.0f} s")

    with elsewhere.begun("import", "--isolated", str(file)) as begun:
        until(lambda: size(elsewhere.folder_of(vm.name) / "disk.qcow2") > PART, "a part of the disk")
        begun.interrupt()
        assert begun.end().code == 130
    assert elsewhere.left_over() == []
    assert not list(Path(elsewhere.env["MACHINE_IMAGES_PATH"]).glob("[!.]*"))

    refused = elsewhere.machine("import", file, code=2)
    assert "names docker.test" in refused.err
    done = elsewhere.machine("import", "--isolated", "--name", "moved", file)
    file.unlink()
    testbed.say(f"imported in {done.seconds:.0f} s")
    elsewhere.machine("start", "moved")
    moved = Vm(elsewhere, "moved", elsewhere.note("moved"), elsewhere.docker_env("moved"))
    assert moved.address != vm.address
    assert in_volume(moved, SUM) == written
    assert in_volume(moved, "cat /data/page") == "after\n"
    assert moved.ssh("hostname").out == "moved\n"

    moved.machine("kill")
    [kept] = json.loads(elsewhere.machine("snapshot", "ls", "--json", "moved").out)
    assert (kept["name"], kept["running"]) == ("then", False)
    elsewhere.machine("snapshot", "restore", "moved", "then")
    assert moved.machine("status").out == "Stopped\n"
    moved.machine("start")
    assert in_volume(moved, "cat /data/page") == "before\n"
    moved.machine("stop")
    testbed.execute(["qemu-img", "check", "-q", elsewhere.folder_of("moved") / "disk.qcow2"], env=dict(os.environ))


def test_the_first_one_keeps_its_snapshot(vm: Vm, written: str) -> None:
    [kept] = json.loads(vm.store.machine("snapshot", "ls", "--json", vm.name).out)
    assert (kept["name"], kept["running"]) == ("then", True)
    vm.store.machine("snapshot", "rm", vm.name, "then")
