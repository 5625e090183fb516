"""What the environment can be: a home folder that isn't one, a terminal that lacks characters, faults of ours."""

import io
import os
import sys
from pathlib import Path

import pytest

from machine import paths, ssh, store
from tests.fixture_types import Invoke, Ordinary, Outcome, Spawn


@pytest.mark.parametrize("home", [None, "", "relative", "./x"])
def test_without_a_home_folder_the_one_of_the_account_is_taken(
    home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwd = pytest.importorskip("pwd")
    monkeypatch.delenv("MACHINE_STORAGE_PATH", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert paths.store() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".machine"


@pytest.mark.parametrize(
    ("home", "words"),
    [(None, ["ls"]), ("", ["create", "dev"]), (None, ["env"]), ("", ["doctor"]), (None, ["iso", "ls"])],
)
def test_neither_a_home_folder_nor_an_account(ordinary: Ordinary, home: str | None, words: list[str]) -> None:
    shown = ordinary(*words, HOME=home)
    assert shown.code == 1
    assert shown.err.startswith(
        "Error: you have no home folder: $HOME isn't an absolute path, and the system knows no user"
    )
    assert "Next: export MACHINE_STORAGE_PATH=/var/tmp/machine\n" in shown.err


def test_a_store_elsewhere_makes_up_for_it(ordinary: Ordinary, user_home: Path) -> None:
    elsewhere = str(user_home / ".machine")
    assert ordinary("ls", HOME=None, MACHINE_STORAGE_PATH=elsewhere) == Outcome(0, ordinary("ls").out, "")
    assert ordinary("doctor", HOME=None, MACHINE_STORAGE_PATH=elsewhere).code in {0, 1}


@pytest.mark.parametrize("home", ["/dev/null", "/nonexistent", "/root", "/proc"])
def test_a_home_folder_that_is_none(ordinary: Ordinary, home: str) -> None:
    assert ordinary("ls", HOME=home).code in {0, 1}
    assert ordinary("doctor", HOME=home).code == 1
    shown = ordinary("create", "--driver", "none", "--url", "tcp://127.0.0.1:1", "dev", HOME=home)
    assert shown.code in {1, 3}
    assert "MACHINE_STORAGE_PATH" in shown.err


def test_a_store_of_an_unknown_user(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINE_STORAGE_PATH", "~no-such-user/x")
    shown = invoke("ls")
    assert shown.code == 1
    assert shown.err.startswith("Error: ~no-such-user/x: there is no such user\n")


def test_a_user_without_an_account_goes_without_openssh(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH says "No user exists for uid 54321", and ends."""
    pwd = pytest.importorskip("pwd")
    monkeypatch.delenv("MACHINE_NATIVE_SSH", raising=False)
    assert not ssh.is_native()

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert ssh.is_native()


def test_a_folder_that_was_removed_under_us(spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert spawn("ls").code == 0
    shown = spawn("ls", env={"MACHINE_STORAGE_PATH": "here"})
    assert (shown.code, "Traceback" in shown.err) == (1, False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_the_terminal_cant_show_is_escaped(spawn: Spawn, store: Path, encoding: str) -> None:
    folder = store / "machines" / "w\u0161 \udcff"
    folder.mkdir(parents=True)
    (folder / "machine.json").write_text("{}", encoding="utf-8")
    for words in (["ls"], ["ls", "--json"], ["doctor", "--json"], ["ls", "-q"]):
        shown = spawn(*words, env={"PYTHONIOENCODING": encoding})
        assert "Traceback" not in shown.err
        assert "fault" not in shown.err


@pytest.mark.parametrize(
    "fault", [TypeError("x"), KeyError("x"), RecursionError(), UnicodeDecodeError("a", b"b", 0, 1, "c")]
)
def test_a_fault_of_ours_is_a_sentence(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def broken() -> list[str]:
        raise fault

    monkeypatch.setattr(store, "names", broken)
    shown = invoke("ls", "--filter", "name=a b")
    assert shown.code == 1
    assert shown.err.startswith(f"Error: this is a bug in machine, please report it: {type(fault).__name__}: ")
    assert shown.err.endswith("Next: machine --debug ls --filter 'name=a b'\n")
    assert "Traceback" not in shown.err
    monkeypatch.setenv("MACHINE_DEBUG", "1")
    assert "Traceback" in invoke("ls").err


def test_a_stderr_that_nobody_reads(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    from machine.cli import main

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "argv", ["machine", "status", "x"])
    monkeypatch.setattr(sys, "stderr", Broken())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1


@pytest.mark.parametrize(
    "store", ["/tmp/" + "x" * 300, "/tmp/" + "y/" * 3000, "/dev/null/x", "/tmp/a\nb", "/tmp/${HOME}"]
)
def test_a_store_that_cant_be_made(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    monkeypatch.setenv("MACHINE_STORAGE_PATH", store)
    shown = invoke("create", "--driver", "none", "--url", "tcp://127.0.0.1:1", "--no-tls", "dev")
    assert shown.code in {1, 3}
    assert shown.err.startswith("Error: ")
    assert not [sign for sign in ("Traceback", "fault", "already exists") if sign in shown.err]
    assert invoke("ls", "-q").code in {0, 1}


@pytest.mark.parametrize("words", [["create", "dev"], ["ls"], ["image", "ls"], ["template", "ls"]])
def test_a_store_that_is_a_file(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "file"))
    monkeypatch.delenv("MACHINE_IMAGES_PATH", raising=False)
    shown = invoke(*words)
    assert shown.code in {1, 3}
    assert "Next: export MACHINE_STORAGE_PATH=" in shown.err
