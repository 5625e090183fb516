from pathlib import Path

from machine.folders import asked
from machine.folders.asked import Folder
from machine.guest.seed import Mount

OPTIONS = asked._OPTIONS


def test_what_is_asked_for() -> None:
    assert asked.parse("/home/ann") == Folder(Path("/home/ann"), "/home/ann", False)
    assert asked.parse("/home/ann/") == Folder(Path("/home/ann"), "/home/ann", False)
    assert asked.parse("/home/ann:ro") == Folder(Path("/home/ann"), "/home/ann", True)
    assert asked.parse("/home/ann:rw") == Folder(Path("/home/ann"), "/home/ann", False)
    assert asked.parse("/home/ann:/src:ro") == Folder(Path("/home/ann"), "/src", True)


def test_the_guest_mounts_them_from_above_to_below() -> None:
    above, below = asked.mounts(["/b/c d:ro", "/b"])
    assert above == Mount("10.0.2.100:/b", "/b", "nfs", OPTIONS)
    assert below == Mount("10.0.2.100:/b/c d", "/b/c d", "nfs", f"ro,{OPTIONS}")


def test_the_guest_waits_for_the_server_and_does_without_programs_of_its_own() -> None:
    assert {"hard", "nolock", "nfsvers=3", "proto=tcp", "addr=10.0.2.100"} <= set(OPTIONS.split(","))


def test_keys_are_hidden(tmp_path: Path) -> None:
    assert tmp_path in asked.hidden(tmp_path)
    assert {path.name for path in asked.hidden(tmp_path)} >= {".ssh", ".docker", ".machine"}
