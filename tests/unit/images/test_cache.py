import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_fixtures import add_image

from machine import paths
from machine.errors import ImageCorrupt, MachineError, NoSuchImage
from machine.images import cache as images
from machine.images.cache import ImageInfo
from machine.paths import Image


@pytest.fixture(autouse=True)
def cache(store: Path) -> Path:
    return store / "images"


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != ".lock")


def test_an_image_is_found_by_its_name_and_the_beginning_of_its_digest(tmp_path: Path, cache: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    image = images.current("machineos")
    assert image.digest == about.digest == images.digest(tmp_path / "image")
    assert image.file.read_bytes() == b"one"
    assert (image.kernel.read_bytes(), image.initrd.read_bytes()) == (b"k", b"i")
    assert image.command_line.read_text() == "quiet\n"
    assert images.find("machineos") == images.find(about.digest) == images.find(about.digest[:5]) == about
    assert entries(cache) == sorted([about.digest, "machineos"])
    images.verify(image)


def test_the_name_follows_the_newest(tmp_path: Path) -> None:
    old = add_image(tmp_path, "machineos", b"one", "2024-01-01")
    new = add_image(tmp_path, "machineos", b"two", "2024-01-02")
    assert images.find("machineos") == new
    assert list(images.cached()) == [old, new]
    assert images.find(old.digest) == old


def test_a_file_with_another_digest_isnt_taken(tmp_path: Path, cache: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    images.remove(about)
    (tmp_path / "image").write_bytes(b"changed")
    with pytest.raises(ImageCorrupt, match=f"not {about.digest}"):
        images.add(tmp_path / "image", about)
    assert entries(cache) == []


def test_an_image_that_is_there_is_added_again(tmp_path: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    Image(about.digest).file.write_bytes(b"damaged")
    assert add_image(tmp_path, "machineos", b"one") == about
    images.verify(Image(about.digest))


def test_two_that_add_the_same_dont_meet(tmp_path: Path, cache: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            for _ in range(5):
                add_image(folder, "machineos", b"x" * 1000000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert failures == []
    images.verify(images.current("machineos"))
    assert len(entries(cache)) == 2


def test_what_a_killed_add_left_is_no_image_and_goes_with_the_next(tmp_path: Path, cache: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    left = cache / f".new-{about.digest}"
    left.mkdir()
    (left / "image.json").write_text(json.dumps(vars(about)))
    assert images.find(about.digest[:4]) == about
    add_image(tmp_path, "other", b"two")
    assert not left.exists()


def test_an_image_that_was_changed_in_the_cache_isnt_booted(tmp_path: Path) -> None:
    image = Image(add_image(tmp_path, "machineos", b"one").digest)
    image.file.write_bytes(b"two")
    with pytest.raises(ImageCorrupt, match="is damaged") as caught:
        images.verify(image)
    assert f"machine iso rm {image.digest[:12]}" in caught.value.hint
    image.file.unlink()
    with pytest.raises(NoSuchImage, match="isn't in the cache"):
        images.verify(image)


def test_a_file_is_read_again_only_when_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image(add_image(tmp_path, "machineos", b"one").digest)
    read: list[Path] = []
    original = images.digest
    monkeypatch.setattr(images, "digest", lambda path: read.append(path) or original(path))
    images.verify(image)
    assert not image.verified.exists(), "a change in the same moment would not be seen"
    monkeypatch.setattr(images, "RECENT", -1.0)
    images.verify(image)
    read.clear()
    images.verify(image)
    assert not read
    images.verify(image, whole=True)
    assert image.file in read
    image.file.write_bytes(b"two")
    with pytest.raises(ImageCorrupt):
        images.verify(image)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_what_others_may_write_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could write that a file was read, too."""
    image = Image(add_image(tmp_path, "machineos", b"one").digest)
    monkeypatch.setattr(images, "RECENT", -1.0)
    images.verify(image)
    assert image.verified.exists()
    read: list[Path] = []
    original = images.digest
    monkeypatch.setattr(images, "digest", lambda path: read.append(path) or original(path))
    for folder in (image.folder, image.folder.parent):
        folder.chmod(0o770)
        images.verify(image)
        assert image.file in read
        read.clear()
        folder.chmod(0o700)
    images.verify(image)
    assert not read


@pytest.mark.parametrize("name", ["kernel", "initrd", "cmdline", "boot.json"])
def test_what_boots_is_what_was_taken_out_of_the_image(tmp_path: Path, name: str) -> None:
    image = Image(add_image(tmp_path, "machineos", b"one").digest)
    (image.folder / name).write_bytes(b"changed")
    with pytest.raises(ImageCorrupt, match=f"{name} is damaged"):
        images.verify(image)
    if name != "boot.json":
        (image.folder / name).unlink()
        with pytest.raises(ImageCorrupt, match=f"{name} is damaged"):
            images.verify(image)


def test_an_image_of_an_earlier_version_has_no_sums(tmp_path: Path) -> None:
    image = Image(add_image(tmp_path, "machineos", b"one").digest)
    (image.folder / images.SUMS).unlink()
    images.verify(image)


def test_an_absent_image_has_a_hint() -> None:
    with pytest.raises(NoSuchImage, match='there is no image "machineos"') as caught:
        images.current("machineos")
    assert caught.value.hint == "machine iso build"


def test_the_hint_where_no_image_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(NoSuchImage) as caught:
        images.current("machineos")
    assert caught.value.hint == "machine iso build --in-machine"
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(NoSuchImage) as caught:
        images.current("machineos")
    assert "in WSL 2 (machine iso build)" in caught.value.hint
    assert caught.value.hint.endswith("--image FILE")
    with pytest.raises(NoSuchImage) as caught:
        images.current("debian")
    assert caught.value.hint.endswith("machine iso ls")
    assert list(images.cached()) == []


@pytest.mark.parametrize("text", ["", "no-such", "../images/machineos", "/etc/passwd", ".lock", "\0", "*"])
def test_what_names_no_image(tmp_path: Path, text: str) -> None:
    add_image(tmp_path, "machineos", b"one")
    with pytest.raises(NoSuchImage):
        images.find(text)


def test_several_images_with_one_beginning(tmp_path: Path, cache: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    twin = about.digest[:10] + "0" * 54
    (cache / twin).mkdir()
    (cache / twin / "image.json").write_text(json.dumps(vars(replace(about, digest=twin))))
    with pytest.raises(MachineError, match="several images begin"):
        images.find(about.digest[:10])
    assert images.find(about.digest[:30]) == about


def test_a_name_goes_before_a_digest(tmp_path: Path) -> None:
    first = add_image(tmp_path, "machineos", b"one")
    named = add_image(tmp_path, first.digest[0], b"two")
    assert images.find(first.digest[0]) == named


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "x"}', "null"])
def test_a_damaged_image_json_hides_no_other(tmp_path: Path, cache: Path, text: str) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    (cache / "bad").mkdir()
    (cache / "bad" / "image.json").write_text(text)
    (cache / "empty").mkdir()
    assert list(images.cached()) == [about]


def test_removing_takes_the_name_only_from_the_newest(tmp_path: Path, cache: Path) -> None:
    old = add_image(tmp_path, "machineos", b"one")
    new = add_image(tmp_path, "machineos", b"two")
    images.remove(old)
    assert images.current("machineos").digest == new.digest
    images.remove(new)
    assert entries(cache) == []


def test_image_json_holds_what_is_known(tmp_path: Path) -> None:
    about = add_image(tmp_path, "machineos", b"one")
    assert ImageInfo(**json.loads(Image(about.digest).about.read_text())) == about
    assert about.size == 3
    assert paths.images().stat().st_mode & 0o077 == 0
