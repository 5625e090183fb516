from pathlib import Path

import pytest

from machine.errors import CheckFailed, Usage
from machine.folders import mount_spec
from machine.folders.mount_spec import Folder
from machine.guest.seed import Mount

OPTIONS = mount_spec.options(mount_spec.parse("/b"))


def test_what_is_asked_for() -> None:
    assert mount_spec.parse("/home/ann") == Folder(Path("/home/ann"), "/home/ann", False)
    assert mount_spec.parse("/home/ann/") == Folder(Path("/home/ann"), "/home/ann", False)
    assert mount_spec.parse("/home/ann:ro") == Folder(Path("/home/ann"), "/home/ann", True)
    assert mount_spec.parse("/home/ann:rw") == Folder(Path("/home/ann"), "/home/ann", False)
    assert mount_spec.parse("/home/ann:/src:ro") == Folder(Path("/home/ann"), "/src", True)


def test_the_guest_mounts_them_from_above_to_below() -> None:
    above, below = mount_spec.mounts(["/b/c d:ro", "/b"])
    assert above == Mount("10.0.2.100:/b", "/b", "nfs", OPTIONS)
    assert below == Mount("10.0.2.100:/b/c d", "/b/c d", "nfs", f"ro,{OPTIONS}")


def test_the_guest_waits_for_the_server_and_does_without_programs_of_its_own() -> None:
    assert {"hard", "nolock", "nfsvers=3", "proto=tcp", "addr=10.0.2.100"} <= set(OPTIONS.split(","))


def test_a_guest_whose_helper_mounts_them_reaches_them_on_its_loopback() -> None:
    [mount] = mount_spec.mounts(["/b:/c:ro"], relayed=True)
    assert (mount.source, mount.target, mount.type) == ("127.0.0.1:/c", "/c", "relayed")
    assert {"ro", "hard", "port=61049", "mountport=61049", "addr=127.0.0.1"} <= set(mount.options.split(","))


def test_what_a_guest_has_mounted() -> None:
    table = [
        "/dev/vdb /mnt/data ext4 rw 0 0",
        r"10.0.2.100:/a\040b /a\040b nfs rw 0 0",
        f"127.0.0.1:/{'0' * 32}/c /c nfs ro 0 0",
        "10.0.0.1:/theirs /theirs nfs rw 0 0",
    ]
    assert mount_spec.mounted("\n".join(table)) == {"/a b", "/c"}


def test_keys_are_hidden(tmp_path: Path) -> None:
    assert tmp_path in mount_spec.hidden(tmp_path)
    assert {path.name for path in mount_spec.hidden(tmp_path)} >= {".ssh", ".docker", ".machine"}


@pytest.mark.parametrize("text", ["//etc", "/home/ann://etc"])
def test_two_slashes_are_no_way_to_the_machines_own_folders(text: str) -> None:
    with pytest.raises(Usage):
        mount_spec.parse(text)


def test_one_in_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Usage, match=r"/src/q lies in /src"):
        mount_spec.check([f"{tmp_path}:/src", f"{tmp_path}:/src/q"], tmp_path / "store")


def test_links_are_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert mount_spec.resolved([f"{tmp_path}/link:ro", f"{tmp_path}/real"]) == (
        f"{tmp_path}/real:{tmp_path}/link:ro",
        f"{tmp_path}/real",
    )


def test_what_runs_this_program_is_shared_for_reading_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = tmp_path / "project/.venv"
    (environment / "lib").mkdir(parents=True)
    monkeypatch.setattr("sys.prefix", str(environment))
    for folder in (environment, environment / "lib"):
        with pytest.raises(CheckFailed, match=r"runs from .*/project/\.venv"):
            mount_spec.check([str(folder)], tmp_path / "store")
        mount_spec.check([f"{folder}:/src:ro"], tmp_path / "store")
    mount_spec.check([str(tmp_path / "project")], tmp_path / "store")
