import contextlib
import dataclasses
import json
import platform
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from fake_fixtures import add_image
from machine.isos.machineos import recipe
from tiny_iso import iso

from machine import create
from machine.errors import CheckFailed
from machine.images import builder, cache, catalog, machineos
from machine.images.cache import ImageInfo
from machine.instance import Instance
from machine.paths import Image, MachineFolder
from machine.progress import Progress
from machine.spec import Address, Machine
from machine.ssh.remote import Remote
from tests.fixture_types import Add, Invoke, Outcome


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> list[tuple[str, Path | None]]:
    """What would have been built: architecture and output."""
    asked: list[tuple[str, Path | None]] = []

    def build(architecture: str, say: Callable[[str], None], *, output: Path | None = None) -> ImageInfo:
        asked.append((architecture, output))
        say("making it")
        return add_image(tmp_path, "machineos", b"x" * 3_000_000, recipe=recipe.digest())

    monkeypatch.setattr(machineos, "build", build)
    monkeypatch.setattr(machineos, "why_not_here", lambda: "")
    return asked


@pytest.fixture
def in_machine(
    monkeypatch: pytest.MonkeyPatch, builds: list[tuple[str, Path | None]], tmp_path: Path
) -> list[tuple[str, str, str]]:
    """What would have been built inside a machine: architecture, driver and image."""
    asked: list[tuple[str, str, str]] = []
    machines: list[Machine] = []

    def obtain(text: str, progress: Progress) -> ImageInfo:
        return dataclasses.replace(add_image(tmp_path, "debian", b"disk"), name=text, digest=f"digest of {text}")

    @contextlib.contextmanager
    def temporary(machine: Machine, progress: Progress, *, timeout: float) -> Iterator[Instance]:
        machines.append(machine)
        yield Instance(dataclasses.replace(machine, address=Address("127.77.1.2", 2375, 22)), MachineFolder(tmp_path))
        machines.pop()

    def build(remote: Remote, architecture: str, progress: Progress, folder: Path) -> Path:
        [machine] = machines
        asked.append((architecture, machine.driver, machine.image.removeprefix("digest of ")))
        (folder / f"machineos-{architecture}.json").write_text("{}")
        return iso(folder / f"machineos-{architecture}.iso")

    monkeypatch.setattr(catalog, "obtain", obtain)
    monkeypatch.setattr(create, "temporary", temporary)
    monkeypatch.setattr(builder, "build", build)
    monkeypatch.setattr(machineos, "why_not_here", lambda: "mmdebstrap isn't installed")
    return asked


def test_build_inside_a_machine(invoke: Invoke, in_machine: list[tuple[str, str, str]], tmp_path: Path) -> None:
    words = ["--driver", "qemu", "--builder-image", "mine", "-o", str(tmp_path / "out")]
    ended = invoke("iso", "build", "--in-machine", "--arch", "x86_64", *words)
    assert ended.code == 0, ended
    assert in_machine == [("x86_64", "qemu", "mine")]
    assert cache.find("machineos").digest in ended.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"machineos-x86_64.iso", "machineos-x86_64.json"}


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 3), ("", 3)])
def test_without_the_tools_the_user_is_asked(
    invoke: Invoke,
    in_machine: list[tuple[str, str, str]],
    builds: list[tuple[str, Path | None]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(answer))
    ended = invoke("iso", "build", "--arch", "x86_64", "--driver", "qemu")
    assert ended.code == code, ended
    assert "mmdebstrap isn't installed" in ended.err
    assert ("Next: machine iso build --in-machine" in ended.err) == bool(code)
    assert in_machine == ([] if code else [("x86_64", "qemu", builder.IMAGE)])
    assert builds == []


def test_a_driver_that_boots_no_cloud_image_is_no_way(
    invoke: Invoke, in_machine: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    monkeypatch.setattr("sys.platform", "win32")
    ended = invoke("iso", "build", "--arch", "x86_64", "--driver", "virtualbox")
    assert (ended.code, "build it on Linux or in WSL 2" in ended.err) == (3, True)
    assert in_machine == []


def test_build_shows_its_steps_and_what_was_made(invoke: Invoke, builds: list[tuple[str, Path | None]]) -> None:
    shown = invoke("iso", "build")
    digest = cache.find("machineos").digest
    assert (shown.code, shown.out) == (0, f"machineos x86_64 2 MiB sha256:{digest}\n")
    assert shown.err == "[  0.0 s] making it\n"
    machine = platform.machine().lower()
    assert builds == [({"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine), None)]


def test_build_for_another_processor_into_a_folder(invoke: Invoke, builds: list[tuple[str, Path | None]]) -> None:
    assert invoke("iso", "build", "--arch", "aarch64", "-o", "out", "--quiet") == Outcome(0, "", "")
    assert builds == [("aarch64", Path("out"))]
    assert invoke("iso", "build", "--arch", "sparc").code == 2


def test_build_if_missing(invoke: Invoke, builds: list[tuple[str, Path | None]]) -> None:
    assert invoke("iso", "build", "--if-missing", "-q").code == 0
    assert invoke("iso", "build", "--if-missing") == Outcome(0, "", "")
    assert len(builds) == 1
    Image(cache.find("machineos").digest).file.unlink()
    invoke("iso", "build", "--if-missing")
    assert len(builds) == 2


def test_an_image_of_another_recipe_is_as_good_as_none(
    invoke: Invoke, builds: list[tuple[str, Path | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("iso", "build", "--if-missing")
    monkeypatch.setattr(recipe, "digest", lambda: "another")
    invoke("iso", "build", "--if-missing")
    assert len(builds) == 2


def test_a_build_that_cant_be(invoke: Invoke, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> ImageInfo:
        raise CheckFailed("mmdebstrap was not found", hint="sudo apt install mmdebstrap")

    monkeypatch.setattr(machineos, "build", build)
    assert invoke("iso", "build") == Outcome(
        3, "", "Error: mmdebstrap was not found\nNext: sudo apt install mmdebstrap\n"
    )


def test_ls(invoke: Invoke, add: Add, tmp_path: Path) -> None:
    add("dev")
    assert invoke("iso", "ls").lines == ["NAME   DIGEST   ARCH   SIZE   CREATED   USED BY"]
    assert invoke("iso", "ls", "--quiet").out == ""
    assert json.loads(invoke("iso", "ls", "--json").out) == []
    about = add_image(tmp_path, "machineos", b"x" * 2_000_000, "2024-01-02T03:04:05+00:00")
    for name in ("b", "a"):
        add(name, image=about.digest)
    header, line = invoke("iso", "ls").lines
    assert line == f"machineos   {about.digest[:12]}   x86_64   1 MiB   2024-01-02T03:04:05+00:00   a, b"
    assert header.index("USED BY") == line.index("a, b")
    assert invoke("iso", "ls", "-q").out == f"{about.digest}\n"
    (listed,) = json.loads(invoke("iso", "ls", "--json").out)
    assert listed["digest"] == about.digest


def test_rm(invoke: Invoke, add: Add, tmp_path: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    assert invoke("iso", "rm", about.digest[:6]) == Outcome(0, f"Removed machineos {about.digest[:12]}\n", "")
    assert list(cache.cached()) == []


def test_rm_of_one_that_is_used(invoke: Invoke, add: Add, tmp_path: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    add("dev", image=about.digest)
    shown = invoke("iso", "rm", "machineos")
    assert shown.code == 2
    assert f"the image {about.digest[:12]} is used by dev" in shown.err
    assert "machine iso rm -f machineos" in shown.err
    assert invoke("iso", "rm", "-f", "machineos").code == 0


@pytest.mark.parametrize("name", ["", "none", "../x"])
def test_rm_of_what_isnt_there(invoke: Invoke, store: Path, tmp_path: Path, name: str) -> None:
    add_image(tmp_path, "machineos", b"one")
    shown = invoke("iso", "rm", name)
    assert shown.code == 1
    assert "there is no image" in shown.err
    assert len(list(cache.cached())) == 1
