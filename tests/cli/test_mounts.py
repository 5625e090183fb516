"""create --mount: which folders of the host a machine shares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine import paths, registry, store
from machine.folders import mount_spec
from tests.fixture_types import Invoke


@pytest.fixture(autouse=True)
def shares(monkeypatch: pytest.MonkeyPatch, vms: Path) -> None:
    fake = registry.load("fake")
    monkeypatch.setattr(fake, "shares", True)
    monkeypatch.setattr(fake, "mounts", lambda driver: mount_spec.mounts(driver.machine.mounts))


@pytest.fixture(autouse=True)
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "ann"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def test_the_machine_has_what_was_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "two words").mkdir()
    given = (str(tmp_path), f"{tmp_path}/two words:/src:ro")
    shown = invoke("create", "dev", "--mount", given[0], "--mount", given[1])
    assert shown.code == 0, shown.err
    assert store.load("dev").mounts == given
    mounted = {"state": "mounted", "why": ""}
    assert json.loads(invoke("status", "dev", "--json").out)["mounts"] == [
        {"source": str(tmp_path), "target": str(tmp_path), "read_only": False, **mounted},
        {"source": f"{tmp_path}/two words", "target": "/src", "read_only": True, **mounted},
    ]
    assert json.loads(invoke("inspect", "dev").out)["Machine"]["mounts"] == list(given)


def test_the_home_folder_is_in_it_when_nothing_is_said(invoke: Invoke, user_home: Path) -> None:
    shown = invoke("create", "dev")
    assert store.load("dev").mounts == (str(user_home),)
    assert f"files of this computer below {user_home}, and empty" in shown.err


@pytest.mark.parametrize(
    ("typed", "mounts"),
    [
        (["none"], ()),
        (["home"], ("{home}",)),
        (["home:ro"], ("{home}:ro",)),
        (["home:/host", "{tmp}/a"], ("{home}:/host", "{tmp}/a")),
    ],
)
def test_words(invoke: Invoke, user_home: Path, tmp_path: Path, typed: list[str], mounts: tuple[str, ...]) -> None:
    (tmp_path / "a").mkdir()
    places = {"home": str(user_home), "tmp": str(tmp_path)}
    words = [word for text in typed for word in ("--mount", text.format(**places))]
    shown = invoke("create", "dev", *words)
    assert shown.code == 0, shown.err
    assert store.load("dev").mounts == tuple(text.format(**places) for text in mounts)


@pytest.mark.parametrize("typed", [".", "./b:ro", "../c:/c", "~/d", "~"])
def test_paths_from_here_and_from_home(
    invoke: Invoke, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """As the shell spells them, which is how `docker run -v "$PWD"` asks for them."""
    for folder in (tmp_path / "real/a/b", tmp_path / "real/c", user_home / "d"):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "link/a")
    monkeypatch.setenv("PWD", str(tmp_path / "link/a"))
    shown = invoke("create", "dev", "--mount", typed)
    assert shown.code == 0, shown.err
    [found] = [mount_spec.parse(text) for text in store.load("dev").mounts]
    wanted = {
        ".": (tmp_path / "real/a", f"{tmp_path}/link/a", False),
        "./b:ro": (tmp_path / "real/a/b", f"{tmp_path}/link/a/b", True),
        "../c:/c": (tmp_path / "real/c", "/c", False),
        "~/d": (user_home / "d", f"{user_home}/d", False),
        "~": (user_home, str(user_home), False),
    }
    assert (found.source, found.target, found.read_only) == wanted[typed]


def test_a_shell_that_was_somewhere_else(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PWD", "/")
    invoke("create", "dev", "--mount", ".")
    assert store.load("dev").mounts == (str(tmp_path / "here"),)


def test_none_stands_alone(invoke: Invoke, tmp_path: Path) -> None:
    shown = invoke("create", "dev", "--mount", "none", "--mount", str(tmp_path))
    assert (shown.code, "--mount none goes with no other" in shown.err) == (2, True)


def test_a_default_of_the_users_own(invoke: Invoke, vms: Path) -> None:
    (paths.store() / "config.toml").write_text('mount = ["none"]\n')
    shown = invoke("create", "dev")
    assert store.load("dev").mounts == ()
    assert "it shares no folder of this computer" in shown.err
    assert "share one: machine mount add dev DIR" in shown.err


def test_a_home_behind_a_link_is_at_the_path_that_the_user_types(
    invoke: Invoke, user_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(user_home)
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    invoke("create", "dev")
    assert store.load("dev").mounts == (f"{user_home}:{tmp_path}/link",)


@pytest.mark.parametrize(("home", "why"), [("/root", "has a folder /root of its own"), ("{0}/a:b", "has a colon")])
def test_a_home_that_cant_be_shared_is_said(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, why: str
) -> None:
    (tmp_path / "a:b").mkdir()
    monkeypatch.setenv("HOME", home.format(tmp_path))
    shown = invoke("create", "dev")
    assert (shown.code, store.load("dev").mounts) == (0, ())
    assert why in shown.err
    assert "share another: machine mount add dev DIR" in shown.err


def test_a_guest_that_doesnt_mount_the_home_goes_without_it(
    invoke: Invoke, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its image was made by a version without shared folders: machines of it could be made before, too."""
    monkeypatch.setattr(
        registry.load("fake"), "unmounted", lambda driver, _=0.0: dict.fromkeys(driver.machine.mounts, "it is old")
    )
    shown = invoke("create", "dev")
    assert (shown.code, store.load("dev").mounts) == (0, ())
    assert "the guest didn't mount your home folder" in shown.err
    assert invoke("create", "two", "--mount", "home").code == 1
    assert store.names() == ["dev"]


def test_what_lies_in_the_home_and_is_hidden(user_home: Path, vms: Path) -> None:
    (paths.store() / "config.toml").write_text('mount-hide = ["~/.aws"]\n')
    hidden = {user_home / ".ssh", user_home / ".docker", paths.store(), user_home / ".aws"}
    assert hidden <= set(mount_spec.hidden(paths.store()))


def test_a_folder_that_has_gone_is_warned_of(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    invoke("create", "dev", "--mount", str(folder))
    assert invoke("status", "dev").err == f"shared folder {folder}: mounted\n"
    folder.rmdir()
    assert invoke("status", "dev").err == f"shared folder {folder}: missing on this computer\n"
    assert json.loads(invoke("status", "dev", "--json").out)["warnings"] == [
        f"the shared folder {folder} doesn't exist"
    ]


def test_status_says_why_a_folder_isnt_mounted(invoke: Invoke, tmp_path: Path, vms: Path) -> None:
    for name in ("a b", "c"):
        (tmp_path / name).mkdir()
    invoke("create", "dev", "--mount", f"{tmp_path}/a b", "--mount", f"{tmp_path}/c:/c:ro")
    said = f"the host's folder {tmp_path}/a\\040b could not be mounted: Connection refused"
    (store.folder() / "dev/console.log").write_text(f"machineos: [ 43.97] warning: {said}\n")
    assert invoke("status", "dev").err.splitlines()[:2] == [
        f"shared folder {tmp_path}/a b: not mounted, because Connection refused",
        f"shared folder {tmp_path}/c at /c (read-only): mounted",
    ]
    invoke("stop", "dev")
    ended = invoke("status", "dev")
    assert ended.out == "Stopped\n"
    assert f"shared folder {tmp_path}/a b: not mounted, because the machine is stopped\n" in ended.err


def test_a_config_that_cant_be_read_is_warned_of(invoke: Invoke, user_home: Path) -> None:
    """The server shares nothing then, rather than what is to be hidden."""
    invoke("create", "dev")
    (paths.store() / "config.toml").write_text("mount-hide = 1\n")
    assert "what is hidden can't be told" in invoke("status", "dev").err


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["src"], 2, 'invalid --mount "src": "src" is not an absolute path'),
        (["{0}:src"], 2, "is not an absolute path"),
        ([""], 2, "is not an absolute path"),
        (["{0}/../x"], 2, '".."'),
        (["{0}:/a:/b"], 2, "write DIR:PATH:ro"),
        (["{0}:/a:no"], 2, "write DIR:PATH:ro"),
        (["{0}:/a\tb"], 2, "can't be mounted"),
        (["{0}", "{0}:{0}:ro"], 2, "{0} is given twice"),
        (["{0}:/a", "{0}:/a/"], 2, "/a is given twice"),
        (["{0}:/"], 2, "/ is a folder that the machine needs itself"),
        (["{0}:/usr/share"], 2, "needs itself"),
        (["{0}:/home"], 2, "needs itself"),
        (["{0}/none"], 3, "none can't be shared: it doesn't exist"),
        (["{0}/file"], 3, "file can't be shared: it isn't a folder"),
        (["{0}/link"], 3, "lies in the store"),
    ],
)
def test_what_cant_be_shared_is_said(invoke: Invoke, tmp_path: Path, given: list[str], code: int, said: str) -> None:
    (tmp_path / "file").touch()
    store.folder().mkdir(parents=True)
    (tmp_path / "link").symlink_to(store.folder())
    words = [word for text in given for word in ("--mount", text.format(tmp_path))]
    shown = invoke("create", "dev", *words)
    assert (shown.code, said.format(tmp_path) in shown.err) == (code, True), shown.err
    assert store.names() == []


def test_a_guest_that_doesnt_mount_them_is_no_machine(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        registry.load("fake"), "unmounted", lambda driver, _=0.0: dict.fromkeys(driver.machine.mounts, "it is old")
    )
    shown = invoke("create", "dev", "--mount", str(tmp_path))
    assert (shown.code, "didn't mount the shared folders" in shown.err) == (1, True)
    assert "it is old" in shown.err
    assert store.names() == []


def test_a_driver_that_shares_nothing_says_so(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.load("fake"), "shares", False)
    shown = invoke("create", "dev", "--mount", str(tmp_path))
    assert (shown.code, "the driver fake has no --mount" in shown.err) == (3, True)
    assert store.names() == []
