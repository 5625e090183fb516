from collections.abc import Callable
from pathlib import Path

import pytest
from machine.isos.machineos import build, recipe
from tiny_iso import ABOUT, iso

from machine.errors import ImageCorrupt, NoSuchImage
from machine.images import cache as images
from machine.images import machineos
from machine.paths import Image


@pytest.fixture(autouse=True)
def cache(store: Path) -> Path:
    return store / "images"


def test_an_iso_is_taken_into_the_cache_with_what_boots_it(tmp_path: Path) -> None:
    path = iso(tmp_path / "m.iso")
    assert not machineos.is_cached()
    image = machineos.add(path)
    assert not machineos.is_cached()  # it is there, and made by another recipe
    machineos.add(iso(tmp_path / "ours.iso", {**ABOUT, "recipe": recipe.digest()}))
    assert machineos.is_cached()
    machineos.add(path)
    about = images.find("machineos")
    assert (about.digest, about.size) == (image.digest, path.stat().st_size)
    assert (about.name, about.architecture, about.version, about.format) == ("machineos", "x86_64", "0.1", "iso")
    assert image.file.read_bytes() == path.read_bytes()
    assert image.kernel.read_bytes() == b"kernel" * 1000
    assert image.initrd.read_bytes() == b"initrd" * 5000
    assert image.command_line.read_text() == "quiet root=x"
    images.verify(image)


def test_an_iso_that_isnt_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.iso", tmp_path):
        with pytest.raises(NoSuchImage, match="there is no file"):
            machineos.add(path)


def test_where_it_cant_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machineos, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr("sys.platform", "linux")
    assert machineos.why_not_here() == ""
    monkeypatch.setattr(machineos, "which", lambda tool: None)
    assert machineos.why_not_here() == "mmdebstrap isn't installed"
    monkeypatch.setattr("sys.platform", "darwin")
    assert machineos.why_not_here() == "machineos can be built on Linux only"


def test_other_isos_are_refused(tmp_path: Path, cache: Path) -> None:
    isos = [
        iso(tmp_path / "plain.iso", rock_ridge=None),
        iso(tmp_path / "no-kernel.iso", leave_out="/boot/vmlinuz"),
        iso(tmp_path / "no-about.iso", leave_out="/machineos/about.json"),
    ]
    for path in isos:
        with pytest.raises(ImageCorrupt, match=r"\.iso isn't a machineos ISO") as caught:
            machineos.add(path)
        assert caught.value.hint == "machine iso build"
    assert not cache.exists()


@pytest.mark.parametrize("about", [b"", b"{", b"\xff", [], "text", {}, {**ABOUT, "command_line": 3}])
def test_an_about_json_that_says_nothing_is_refused(tmp_path: Path, about: object) -> None:
    with pytest.raises(ImageCorrupt, match="isn't a machineos ISO"):
        machineos.add(iso(tmp_path / "m.iso", about))


def test_what_is_no_iso_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.iso"
    for content in (b"", b"text", b"\0" * 100_000, b"\xff" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ImageCorrupt, match="isn't a machineos ISO"):
            machineos.add(path)


def test_a_truncated_iso_is_refused(tmp_path: Path) -> None:
    whole = iso(tmp_path / "whole.iso").read_bytes()
    path = tmp_path / "m.iso"
    for length in [*range(2048, len(whole), 2048), 32768 + 100, 36000]:
        path.write_bytes(whole[:length])
        # Padding at the end may be missing; a file that is wanted mayn't.
        with pytest.raises(ImageCorrupt, match="isn't a machineos ISO"):
            machineos.add(path)


def test_a_build_is_taken_into_the_cache_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def make(path: Path, *, arch: str, say: Callable[[str], None]) -> None:
        assert arch == "x86_64"
        iso(path)
        path.with_suffix(".manifest").write_text("busybox 1\n")
        say("made")

    monkeypatch.setattr(build, "build", make)
    about = machineos.build("x86_64", said.append, output=tmp_path / "out" / "here")
    assert images.verify(Image(about.digest)) is None
    assert images.find("machineos") == about
    assert said == ["made"]
    assert sorted(path.name for path in (tmp_path / "out" / "here").iterdir()) == [
        "machineos-x86_64.iso",
        "machineos-x86_64.manifest",
    ]
