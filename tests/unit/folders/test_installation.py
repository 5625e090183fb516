"""What a guest can't write, because this computer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nfs_client import NfsError, Served

import machine
from machine.folders import installation, nfs3
from tests.unit.folders.test_nfs3 import refused


@pytest.fixture
def environment(host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The virtual environment of this program, in a folder that is shared."""
    folder = host / "project/.venv"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.setattr("sys.prefix", str(folder))
    return folder


def test_the_code_and_what_runs_it_are_among_them() -> None:
    """Those that root alone may write are left out."""
    found = installation.folders()
    assert all(folder.is_dir() for folder in found)
    package = Path(machine.__file__).parent
    assert any(package.is_relative_to(folder) for folder in found)
    assert Path(sys.prefix).resolve() in found


def test_the_systems_folders_are_not_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", "/usr")
    monkeypatch.setattr("sys.base_prefix", "/usr")
    assert Path("/usr") not in installation.folders()


def test_they_arent_in_a_folder_that_is_written(home: Path, host: Path, environment: Path) -> None:
    (host / "project/kept").touch()
    with Served(home, str(host)) as client:
        project = client.walk(client.mount(host), "project")
        assert client.names(project) == [b"kept"]
        with refused(2):
            client.lookup(project, b".venv")
        with refused(nfs3.ACCES):
            client.rename(client.mount(host), b"project", client.mount(host), b"moved")
    with Served(home, f"{host}:/src:ro") as client:
        assert client.walk(client.mount("/src"), "project", ".venv", "bin")


def test_a_file_of_the_users_is_not_run_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that has the home folder can put files into ~/.local/lib, which Python would run."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("PYTHONHOME", raising=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (f".local/lib/{version}/site-packages", f"Library/Python/{version[6:]}/lib/python/site-packages"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "evil.pth").write_text("import sys; sys.stderr.write('run')")
    # A virtual environment has no such folder: the interpreter below it has.
    monkeypatch.setattr("sys.executable", str(Path(sys.executable).resolve()))
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [*installation.python(), "-c", ""]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stderr == ""
    assert subprocess.run([words[0], "-P", "-c", ""], capture_output=True, text=True, check=True).stderr == "run"


def test_modules_that_lie_elsewhere_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert installation.python() == [sys.executable, "-P"]
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.delenv("PYTHONHOME", raising=False)
    assert installation.python() == [sys.executable, "-I"]
    monkeypatch.setattr("site.getusersitepackages", lambda: str(Path(machine.__file__).parent))
    assert installation.python() == [sys.executable, "-P"]


def test_no_spelling_leads_to_what_is_hidden(home: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that takes them for one name, as macOS's: also what is made while the server runs."""
    from machine.folders import attributes

    of = attributes.of
    names = (b".SSH", b".s\xe2\x80\x8csh", b".Ssh", "Schlüssel".encode(), "SCHLÜSSEL".encode())

    def insensitive(folder: int, name: bytes, *, waits: bool = True) -> attributes.Attributes:
        real = b".ssh" if name in names[:3] else "Schlu\u0308ssel".encode() if name in names[3:] else name
        return of(folder, real, waits=waits)

    monkeypatch.setattr(attributes, "of", insensitive)
    (host / "kept").touch()
    with Served(home, str(host), hidden=(host / ".ssh", host / "Schlu\u0308ssel")) as client:
        top = client.mount(host)
        for name in names:
            for attempt in (
                lambda name: client.mkdir(top, name),
                lambda name: client.create(top, name),
                lambda name: client.symlink(top, name, b"x"),
                lambda name: client.rename(top, b"kept", top, name),
                lambda name: client.link(client.walk(top, "kept"), top, name),
            ):
                with refused(nfs3.ACCES):
                    attempt(name)
        for folder in (".ssh", "Schlu\u0308ssel"):
            (host / folder).mkdir()
            (host / folder / "key").write_bytes(b"secret")
        for name in names:
            with refused(2):
                client.lookup(top, name)
            with pytest.raises(NfsError):
                client.rename(top, name, top, b"seen")
            with pytest.raises(NfsError):
                client.rmdir(top, name)
        assert client.names(top) == [b"kept"]


def test_another_file_of_such_a_name_is_seen(home: Path, host: Path) -> None:
    (host / ".ssh").mkdir()
    (host / ".SSH").write_bytes(b"text")
    if len(list(host.iterdir())) == 1:
        pytest.skip("they are one here")
    with Served(home, str(host), hidden=(host / ".ssh",)) as client:
        assert client.read(client.walk(client.mount(host), ".SSH"))[0] == b"text"


def test_a_hidden_file_is_not_replaced_by_another_name_of_it(home: Path, host: Path) -> None:
    (host / "key").write_bytes(b"secret")
    (host / "also").hardlink_to(host / "key")
    (host / "kept").touch()
    with Served(home, str(host), hidden=(host / "key",)) as client:
        top = client.mount(host)
        with refused(nfs3.ACCES):
            client.rename(top, b"kept", top, b"also")
