"""A store with files of another user, which `sudo machine` left. Everything else keeps working."""

import json
import os
from pathlib import Path

import pytest
from fake_fixtures import add_image
from ordinary_user import USER, give

from machine import ownership, spec
from machine.spec import Address, Machine
from tests.fixture_types import Invoke, Ordinary


def put(user_home: Path, name: str, *, mine: bool = True) -> Path:
    machine = Machine(name, "fake", "an-id", "52:54:00:00:00:01", "", 2048, 2, 20000, address=Address("127.77.0.9"))
    folder = user_home / ".machine" / "machines" / name
    folder.mkdir(mode=0o700)
    (folder / "machine.json").write_text(spec.dumps(machine), encoding="utf-8")
    (folder / "machine.json").chmod(0o600)
    states = user_home / ".machine" / "fake"
    states.mkdir(exist_ok=True)
    (states / name).write_text("Stopped", encoding="utf-8")
    give(states, *([folder] if mine else []))
    return folder


def add_image_to(store: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MACHINE_STORAGE_PATH", str(store))
        add_image(store, "machineos", b"an operating system")
    give(store / "images", store / "image")


@pytest.fixture
def roots(user_home: Path) -> Path:
    """Two machines of the user's, and one that root made."""
    put(user_home, "web")
    put(user_home, "db")
    return put(user_home, "made-by-root", mine=False)


def test_a_machine_of_roots_is_a_row_with_an_error(ordinary: Ordinary, roots: Path) -> None:
    shown = ordinary("ls", "--json")
    assert (shown.code, shown.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(shown.out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "web": "Stopped",
        "db": "Stopped",
        "made-by-root": "Error",
    }
    assert rows["made-by-root"]["error"] == f"{roots / 'machine.json'} can't be read: Permission denied"


@pytest.mark.parametrize(
    "words",
    [
        ["status", "web"],
        ["env", "web"],
        ["ip", "web"],
        ["inspect", "web"],
        ["version"],
        ["start", "-q", "--timeout", "1", "web"],
        ["kill", "web"],
        ["rm", "-y", "web", "db"],
        ["ssh-config"],
        ["iso", "ls"],
        ["template", "ls"],
        ["image", "prune", "-n"],
        ["completion", "bash"],
        ["help", "create"],
    ],
)
def test_it_is_in_no_other_machines_way(ordinary: Ordinary, roots: Path, words: list[str]) -> None:
    shown = ordinary(*words, FAKE_ANSWERS="1")
    assert shown.code == 0, shown.err


def test_the_verbs_on_it_name_the_command_that_gives_it_back(ordinary: Ordinary, roots: Path) -> None:
    for words in (["status"], ["start"], ["env"], ["rm", "-f"], ["inspect"], ["stop"]):
        shown = ordinary(*words, "made-by-root")
        assert shown.code == 1
        assert f"Next: sudo chown -R {USER} {roots}\n" in shown.err, words
    assert (roots / "machine.json").exists()


def test_create_goes_round_it(ordinary: Ordinary, roots: Path) -> None:
    add_image_to(roots.parents[1])
    shown = ordinary("create", "--driver", "fake", "made-by-root", "dev", FAKE_ANSWERS="1")
    assert shown.code == 1
    assert 'Error: made-by-root: Docker machine "made-by-root" already exists' in shown.err
    assert shown.out.startswith("dev is ready.")
    assert not list(roots.parent.glob(".trash*"))


@pytest.mark.parametrize("name", ["certs", "images", "templates", "machines", "."])
def test_a_folder_of_roots(ordinary: Ordinary, user_home: Path, name: str) -> None:
    folder = user_home / ".machine" / name
    put(user_home, "web")
    add_image_to(user_home / ".machine")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    os.chown(folder, 0, 0)
    command = f"sudo chown -R {USER} {folder}"
    found = {item["text"]: item for item in json.loads(ordinary("doctor", "--json").out)}
    told = found[f"{folder} can't be used: it belongs to root"]
    assert (told["level"], told["hint"]) == ("error", command)
    shown = ordinary("create", "--driver", "fake", "dev", FAKE_ANSWERS="1")
    if name != "templates":
        assert (shown.code, f"Next: {command}\n" in shown.err) == (1 if name == "." else 3, True)
        assert not (user_home / ".machine" / "machines" / "dev").exists()
    if name in {"certs", "images", "templates"}:
        assert "web" in ordinary("ls", "-q").lines
        assert ordinary("env", "web").code == 0


@pytest.mark.parametrize("name", ["lock", "ca.pem", "key.pem", "machine.json"])
def test_a_file_of_roots_in_a_machine_of_the_users(ordinary: Ordinary, user_home: Path, name: str) -> None:
    folder = put(user_home, "web")
    put(user_home, "db")
    file = folder / name
    file.touch()
    file.chmod(0o600)
    os.chown(file, 0, 0)
    command = f"sudo chown -R {USER} {file}"
    assert command in {item["hint"] for item in json.loads(ordinary("doctor", "--json").out)}
    if name in {"lock", "machine.json"}:
        assert f"Next: {command}\n" in ordinary("kill", "web").err
    assert ordinary("kill", "db").code == 0
    assert ordinary("ls", "-q").out == "db\nweb\n"


def test_the_settings_of_root(ordinary: Ordinary, user_home: Path) -> None:
    file = user_home / ".machine" / "config.toml"
    file.touch(0o600)
    shown = ordinary("create", "--driver", "fake", "dev")
    assert shown.code == 1
    assert shown.err == f"Error: Permission denied: {file}\nNext: sudo chown -R {USER} {file}\n"
    assert ordinary("ls").code == 0


def test_a_folder_that_its_owner_may_not_enter_is_opened_by_repair(ordinary: Ordinary, user_home: Path) -> None:
    folder = put(user_home, "web")
    folder.chmod(0)
    assert f"Next: chmod u+rwX {folder}\n" in ordinary("status", "web").err
    assert ordinary("doctor", "--repair").code in {0, 1}
    assert ordinary("status", "web").out.startswith("Stopped")


def test_root_in_the_store_of_somebody_else_is_warned(user_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACHINE_STORAGE_PATH", raising=False)
    monkeypatch.setenv("HOME", str(user_home))
    assert ownership.of_somebody_else().startswith(f"root uses the store of {USER}, {user_home / '.machine'}")
    (user_home / ".machine" / "machines").rmdir()
    (user_home / ".machine").rmdir()
    assert ownership.of_somebody_else()
    os.chown(user_home, 0, 0)
    assert ownership.of_somebody_else() == ""


def test_the_warning_is_printed_before_root_makes_something(
    invoke: Invoke, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(user_home / ".machine"))
    assert invoke("ls", "-q").err.startswith("warning: root uses the store of ")
    assert invoke("version").err == ""
