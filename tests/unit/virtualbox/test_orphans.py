"""Virtual machines in VirtualBox that belong to no machine of the store."""

from __future__ import annotations

from pathlib import Path

import pytest
import spellings
from fake_vboxmanage import UUID, Scripted, info, refused
from machine.drivers.virtualbox import VirtualBox, orphans, parse

from machine.driver import Orphan
from machine.run import Completed
from machine.spec import Machine

OTHER = "99999999-2222-4333-8444-555555555555"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    (folder / "machines").mkdir(parents=True)
    monkeypatch.setattr(orphans, "find_vboxmanage", lambda: "VBoxManage")
    return folder


def listed(*machines: tuple[str, str]) -> Completed:
    """What `list --long vms` prints of (UUID, settings file), as far as it is read."""
    text = "".join(
        f"Name:            dev\nUUID:            {uuid}\nConfig file:     {config}\nEncryption:     disabled\n"
        f"Hardware UUID:   {uuid}\nDescription:\nUUID: none: of yours\n\n"
        for uuid, config in machines
    )
    return Completed([], 0, text, "VBoxManage: error: Runtime error opening '/gone.vbox' for reading\n")


def find(store: Path, run: Scripted, *known: str) -> list[Orphan]:
    machines = [Machine("x", "virtualbox", uuid, "", "", 0, 0, 0) for uuid in known]
    found: list[Orphan] = VirtualBox.orphans(store, machines, run)
    return found


def described(store: Path, name: str = "dev") -> str:
    return f'description="Made by machine; it lies in {store}/machines/{name}"'


def test_one_with_our_mark(store: Path, run: Scripted) -> None:
    config = f"{store}/machines/dev/dev/dev.vbox"
    run.answer("list --long vms", listed((OTHER, "/srv/x.vbox"), (UUID, config)))
    run.answer("list vms", Completed([], 0, f'"dev" {{{UUID}}}\n', ""))
    run.answer(f"showvminfo {UUID}", info("poweroff", described(store), config=config))
    (one,) = find(store, run)
    assert (one.name, one.uuid, one.what) == ("dev", UUID, f"the virtual machine dev ({UUID})")
    assert not run.said(f"showvminfo {OTHER}"), "it lies elsewhere"
    assert one.remove
    one.remove()
    assert run.said("unregistervm") == [["unregistervm", UUID, "--delete"]]


def test_one_that_is_known_is_not_looked_at(store: Path, run: Scripted) -> None:
    run.answer("list --long vms", listed((UUID, f"{store}/machines/dev/dev/dev.vbox")))
    assert find(store, run, UUID) == []
    assert [call[0] for call in run.calls] == ["list"]


@pytest.mark.parametrize("description", ['groups="/"', 'description="mine"', "of another store", "another's name"])
def test_one_without_our_mark_stays(store: Path, run: Scripted, description: str) -> None:
    """docker-machine's, in a store that both use, or one that the user has made his own."""
    config = f"{store}/machines/dev/dev/dev.vbox"
    lines = {"of another store": described(Path("/other")), "another's name": described(store, "web")}
    run.answer("list --long vms", listed((UUID, config)))
    run.answer("showvminfo", info("poweroff", lines.get(description, description), config=config))
    assert find(store, run) == []


def test_a_clone_beside_its_original_is_only_told(store: Path, run: Scripted) -> None:
    (store / "machines" / "dev").mkdir()
    (store / "machines" / "dev" / "machine.json").touch()
    config = f"{store}/machines/dev/dev clone/dev clone.vbox"
    run.answer("list --long vms", listed((UUID, config)))
    run.answer("showvminfo", info("poweroff", described(store), config=config))
    (one,) = find(store, run, OTHER)
    assert (one.remove, one.hint) == (None, f"if you don't need it: VBoxManage unregistervm {UUID} --delete")


def test_one_whose_folder_was_removed(store: Path, run: Scripted) -> None:
    run.answer("list --long vms", listed((UUID, f"{store}/machines/dev/dev/dev.vbox")))
    run.answer("list vms", Completed([], 0, f'"<inaccessible>" {{{UUID}}}\n', ""))
    run.answer("showvminfo", refused("The object functionality is limited", "E_ACCESSDENIED"))
    (one,) = find(store, run)
    assert one.what.endswith("whose files no longer exist")
    assert one.remove
    one.remove()
    assert run.said("unregistervm") == [["unregistervm", UUID]]


def test_one_whose_settings_alone_are_gone_is_only_told(store: Path, run: Scripted) -> None:
    (store / "machines" / "dev").mkdir()
    run.answer("list --long vms", listed((UUID, f"{store}/machines/dev/dev/dev.vbox")))
    run.answer("showvminfo", refused("The object functionality is limited", "E_ACCESSDENIED"))
    (one,) = find(store, run)
    assert (one.remove, one.hint) == (None, f"if you don't want it back: VBoxManage unregistervm {UUID}")


def test_one_that_goes_at_this_moment(store: Path, run: Scripted) -> None:
    run.answer("list --long vms", listed((UUID, f"{store}/machines/dev/dev/dev.vbox")))
    run.answer("showvminfo", refused("Could not find a registered machine", "VBOX_E_OBJECT_NOT_FOUND"))
    assert find(store, run) == []


@pytest.mark.parametrize("spelling", spellings.ALL)
@pytest.mark.parametrize("marked_so", [True, False])
def test_a_store_by_another_way(store: Path, run: Scripted, spelling: spellings.Spell, marked_so: bool) -> None:
    other = Path(spelling(store))
    run.answer("list --long vms", listed((UUID, f"{store}/machines/dev/dev/dev.vbox")))
    run.answer("showvminfo", info("poweroff", described(other if marked_so else store)))
    assert [one.name for one in find(store if marked_so else other, run)] == ["dev"]


def test_nobody_is_asked_without_need(store: Path, run: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "machines").rmdir()
    assert find(store, run) == [], "a disk that isn't mounted"
    (store / "machines").mkdir()
    monkeypatch.setattr(orphans, "find_vboxmanage", lambda: None)
    assert find(store, run) == []
    assert run.calls == []


def test_the_list_of_one_that_cant_be_read() -> None:
    text = (
        "Name:            <inaccessible!>\nUUID:            89ef475c-0136-4feb-9305-84ac5909a5f5\n"
        "Config file:     /s/machines/gone/gone/gone.vbox\nEncryption:     disabled\nAccess error details:\n\n"
    )
    assert parse.settings_files(text) == {"89ef475c-0136-4feb-9305-84ac5909a5f5": "/s/machines/gone/gone/gone.vbox"}
