"""What `launch` does in its mount namespace, in which order. The system calls themselves are for tests/vm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from machine.drivers.lxc import binds, launch, layout, mounts
from machine.drivers.lxc.binds import Bind
from machine.drivers.lxc.launch import Plan
from machine.drivers.lxc.layout import Layout

from machine import run
from machine.errors import DriverFailed, ToolFailed
from machine.run import Completed

FIRST = 0x70000000


class Kernel:
    """Stands for programs and system calls: remembers them in their order."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.codes: dict[str, int] = {}

    def run(self, argv: Sequence[object], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        self.did.append(" ".join(words))
        code = self.codes.get(words[-1], self.codes.get(words[0], 0))
        return Completed(words, code, "/dev/loop7\n" if "--find" in words and not code else "", "")

    def mount(self, source: Path, target: Path, **how: Any) -> None:
        self.did.append(f"bind {source.name} {target.name} {how}")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(layout, "CONTAINERS", tmp_path)
    (tmp_path / "one/seed").mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.getegid", lambda: 0)
    monkeypatch.setattr(launch, "run", kernel.run)
    monkeypatch.setattr(launch, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(binds, "mount", kernel.mount)
    monkeypatch.setattr("os.chown", lambda path, uid, gid: kernel.did.append(f"chown {Path(path).name} {uid}"))
    monkeypatch.setattr(mounts, "set_propagation", lambda path, flags: kernel.did.append(f"propagation {path}"))
    monkeypatch.setattr(launch.disk, "fill", lambda path, run: kernel.did.append(f"fill {path}"))
    monkeypatch.setattr(binds, "run", kernel.run)
    monkeypatch.setattr(mounts, "clone", lambda place, *, recursive: 5)
    monkeypatch.setattr(mounts, "attach", lambda mount, target: kernel.did.append(f"attach {target}"))
    monkeypatch.setattr(launch.roots, "unpack", lambda *_: None)
    # What the tmpfs would bring.
    (tmp_path / "one/memory").mkdir()
    return kernel


def plan(first_id: int | None = FIRST, unpacked: str = "/nowhere/root") -> Plan:
    home = Bind("/home/ann", "abc", 1000, 100)
    return Plan("/images/image", 2048, unpacked, "/store/disk.img", first_id, 1024, (home,))


def step(line: str) -> str:
    word, _, rest = line.partition(" ")
    if word != "mount":
        return word
    return f"mount {rest.split()[1 if '--types' in rest else 0]}"


def steps(kernel: Kernel) -> list[str]:
    return [step(line) for line in kernel.did]


def test_all_is_mounted_and_then_lxc_starts(kernel: Kernel) -> None:
    plan().write(Layout("one"))
    launch.launch(Layout("one"))
    assert [it for it in steps(kernel) if it != "chown"] == [
        *("mount squashfs", "bind", "mount tmpfs", "mount overlay"),
        *(
            "e2fsck",
            "fill",
            "losetup",
            "mount ext4",
            "losetup",
            "bind",
            "bind",
            "mount tmpfs",
            "propagation",
            "mount --bind",
            "bind",
        ),
        *("attach", "umount"),
        "/bin/sh",
    ]
    assert "/usr/bin/lxc-start -P" in kernel.did[-1]
    root, disk, seed, home = (line for line in kernel.did if line.startswith("bind"))
    whole = f"ids=Ids(users=((0, {FIRST}, 65536),), groups=((0, {FIRST}, 65536),))".replace("ids=", "'ids': ")
    assert root.startswith("bind image lower")
    assert whole in root
    assert "'read_only': True" in root
    assert disk.startswith("bind disk data")
    assert whole in disk
    assert seed.startswith("bind seed seed")
    assert f"users=((0, {FIRST}, 1),)" in seed
    # The folder's owner is root there, and nobody else is anybody.
    assert f"users=((1000, {FIRST}, 1),), groups=((100, {FIRST}, 1),)" in home
    assert "'closed': True" in home


def test_a_privileged_container_shows_owners_as_they_are(kernel: Kernel) -> None:
    plan(None).write(Layout("one"))
    launch.launch(Layout("one"))
    root, disk, seed, home = (line for line in kernel.did if line.startswith("bind"))
    assert "'ids': None" in root
    assert "'ids': None" in disk
    assert "users=((0, 0, 1),)" in seed
    assert "users=((1000, 0, 1),)" in home


def test_an_unpacked_root_is_bound_and_the_image_not_mounted(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "unpacked/root").mkdir(parents=True)
    plan(unpacked=str(tmp_path / "unpacked/root")).write(Layout("one"))
    launch.launch(Layout("one"))
    assert "mount squashfs" not in steps(kernel)
    assert next(line for line in kernel.did if line.startswith("bind")).startswith("bind root lower")


def test_a_damaged_disk_is_not_mounted(kernel: Kernel) -> None:
    kernel.codes["e2fsck"] = 4
    plan().write(Layout("one"))
    with pytest.raises(ToolFailed, match="e2fsck failed"):
        launch.launch(Layout("one"))
    assert "mount ext4" not in steps(kernel)


@pytest.mark.parametrize("code", [0, 1])
def test_the_disk_is_written_directly_where_its_file_system_can(kernel: Kernel, code: int) -> None:
    kernel.codes["--direct-io=on"] = code
    plan().write(Layout("one"))
    launch.launch(Layout("one"))
    attached = [line for line in kernel.did if line.startswith("losetup --find --show /store/disk.img")]
    assert len(attached) == 1 + code
    assert attached[0].endswith("--direct-io=on")
    assert any(line.startswith("mount --types ext4") and " /dev/loop7 " in line for line in kernel.did)
    assert "losetup --detach /dev/loop7" in kernel.did


def test_lxc_s_errors_are_shown(kernel: Kernel) -> None:
    kernel.codes["/bin/sh"] = 1
    plan().write(Layout("one"))
    Layout("one").log.write_text("lxc-start one 2026 WARN a - b\nlxc-start one 2026 ERROR start - no cgroup\n")
    with pytest.raises(DriverFailed, match="LXC didn't start the container") as caught:
        launch.launch(Layout("one"))
    assert "no cgroup" in caught.value.details
    assert "WARN" not in caught.value.details


def test_what_the_host_refuses_does_not_keep_lxc_from_starting() -> None:
    """Whoever runs this, the program is run with as many open files as there may be."""
    done = run.run(["sh", "-c", f"ulimit -Sn 256; ulimit -Hn 512; {launch._BEGIN}", "sh", "sh", "-c", "ulimit -n"])
    assert done.stdout.strip() in {"512", "1048576"}
    assert done.stderr == ""
