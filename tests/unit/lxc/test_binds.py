from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_lxc import UUID, Recorder
from machine.drivers.lxc import Lxc, binds, bring, container, launch, layout, mounts
from machine.drivers.lxc.binds import Bind
from machine.drivers.lxc.layout import Layout

from machine.errors import DriverFailed
from machine.folders import installation
from machine.folders.mount_spec import Folder
from machine.run import Completed


@pytest.fixture
def home(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "ann"
    for name in (".ssh", ".config/gcloud/keys", "venv/bin", "src"):
        (home / name).mkdir(parents=True)
    (home / ".netrc").touch()
    monkeypatch.setattr("machine.paths.user_home", lambda: home)
    monkeypatch.setattr(installation, "folders", lambda: [home / "venv"])
    (store / "config.toml").write_text('mount-hide = ["~/.config/gcloud/keys", "~/.netrc"]')
    return home


def test_a_folder_goes_with_its_owner_and_what_is_hidden_in_it(home: Path, store: Path) -> None:
    found = binds.of(Folder(home, "/home/ann", read_only=False), store)
    assert found is not None
    assert (found.source, found.uid, found.gid) == (str(home), home.stat().st_uid, home.stat().st_gid)
    assert found.hidden == (".config/gcloud/keys", ".netrc", ".ssh", "venv")
    to_be_read = binds.of(Folder(home, "/home/ann", read_only=True), store)
    assert to_be_read is not None
    assert "venv" not in to_be_read.hidden, "what is only read can't be replaced"
    assert to_be_read.name != found.name


def test_a_link_hides_what_it_leads_to(home: Path, store: Path) -> None:
    (home / ".ssh").rmdir()
    (home / ".ssh").symlink_to("src")
    found = binds.of(Folder(home, "/home/ann", read_only=False), store)
    assert found is not None
    assert "src" in found.hidden


def test_a_folder_that_has_gone_is_left_out(home: Path, store: Path) -> None:
    assert binds.of(Folder(home / "gone", "/gone", read_only=False), store) is None


@pytest.fixture
def did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was mounted, and unmounted, below Layout("one").host."""
    did: list[str] = []
    monkeypatch.setattr(layout, "CONTAINERS", tmp_path)
    Layout("one").host.mkdir(parents=True)

    def mount(source: Path, target: Path, *, ids: mounts.Ids | None, **how: Any) -> None:
        did.append(f"{source} -> {target.relative_to(Layout('one').stage)}{'' if ids else ' nobody'}")

    def run(argv: Sequence[object], **_: Any) -> Completed:
        words = [str(word) for word in argv]
        did.append(f"{words[0]} {Path(words[-1]).name}")
        return Completed(words, 0, "", "")

    monkeypatch.setattr(binds, "mount", mount)
    monkeypatch.setattr(binds, "run", run)
    monkeypatch.setattr(mounts, "clone", lambda place, *, recursive: did.append(f"all of {place.name}") or 5)
    monkeypatch.setattr(mounts, "attach", lambda mount, target: did.append(f"to {target.name}"))
    return did


def test_what_is_hidden_is_covered_where_it_can_t_be_moved_from(home: Path, did: list[str]) -> None:
    one = Layout("one")
    bind = Bind(str(home), "abc", 1000, 1000, hidden=(".config/gcloud/keys", ".netrc", ".ssh"))
    binds.bring(one, [bind], 0x70000000)
    assert did == [
        f"{home} -> .",
        f"{home}/.config -> .config",
        f"{home}/.config/gcloud -> .config/gcloud",
        f"{one.nothing} -> .config/gcloud/keys nobody",
        f"{one.no_file} -> .netrc nobody",
        f"{one.nothing} -> .ssh nobody",
        "all of stage",
        "to abc",
        "umount stage",
    ]


def test_folders_come_and_go(home: Path, did: list[str]) -> None:
    one, first, second = Layout("one"), Bind(str(home), "first", 0, 0), Bind(str(home), "second", 0, 0)
    binds.bring(one, [first], None)
    binds.bring(one, [first, second], None)
    binds.bring(one, [second], None)
    first_step, second_step = (
        [f"{home} -> .", "all of stage", f"to {name}", "umount stage"] for name in ("first", "second")
    )
    assert did == [*first_step, *second_step, "umount first"]
    assert [path.name for path in one.host.iterdir()] == ["second"]


def test_a_running_container_is_brought_what_machine_json_says(
    lxc: Lxc, home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container.Container, "_monitor", lambda _: 4711)
    there = Layout(UUID)
    there.folder.mkdir(parents=True)
    launch.Plan("image", 0, "root", "disk", 1, 512).write(there)
    machine = replace(lxc.machine, mounts=(f"{home}:/home/ann", f"{home}/gone"))
    shares = Lxc(machine, lxc.folder, lxc.run)
    shares.update_folders()
    assert recorder.calls("-m")[-1][-3:] == ["machine.drivers.lxc.bring", UUID, "4711"]
    [bind] = launch.read(there).binds
    assert bind.source == str(home)
    assert shares.mounts()[0].source == f"/mnt/host/{bind.name}"
    recorder.fails["machine.drivers.lxc.bring"] = "open_tree: Invalid argument"
    with pytest.raises(DriverFailed, match="can't be brought"):
        shares.update_folders()


def test_bring_enters_the_namespace_first(
    home: Path, did: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch.Plan("image", 0, "root", "disk", 1, 512, (Bind(str(home), "abc", 0, 0),)).write(Layout("one"))
    monkeypatch.setattr(mounts, "enter", lambda process, kind: did.append(f"enter {process} {kind}"))
    assert bring.main("one", "4711") == 0
    assert did[:2] == ["enter 4711 mnt", f"{home} -> ."]
    assert did[3] == "to abc"

    def refused(*_: object) -> None:
        raise PermissionError(1, "setns mnt: Operation not permitted")

    monkeypatch.setattr(mounts, "enter", refused)
    assert bring.main("one", "4711") == 1
    assert "not permitted" in capsys.readouterr().err
