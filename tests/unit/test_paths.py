from pathlib import Path

import pytest
import spellings

from machine import paths
from machine.paths import Image, MachineFolder


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in (paths.STORE_VARIABLE, paths.IMAGES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def test_the_store_is_in_the_home_folder_unless_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.store() == tmp_path / ".machine"
    assert paths.images() == tmp_path / ".machine" / "images"
    monkeypatch.setenv(paths.STORE_VARIABLE, "~/other")
    assert paths.store() == tmp_path / "other"
    monkeypatch.setenv(paths.STORE_VARIABLE, "")
    assert paths.store() == tmp_path / ".machine"


def test_a_relative_store_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(paths.STORE_VARIABLE, "here")
    assert paths.store() == tmp_path / "here"


def test_images_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(paths.IMAGES_VARIABLE, "~/cache")
    assert paths.images() == tmp_path / "cache"
    assert Image("ab").file == tmp_path / "cache" / "ab" / "image"
    assert Image("ab").about == tmp_path / "cache" / "ab" / "image.json"


def test_a_home_knows_its_name_and_store_and_no_file_twice() -> None:
    folder = MachineFolder(Path("/store/machines/dev"))
    assert (folder.name, folder.store, folder / "disk") == ("dev", Path("/store"), Path("/store/machines/dev/disk"))
    names = [
        name
        for name, value in vars(MachineFolder).items()
        if isinstance(value, property) and name not in {"name", "store"}
    ]
    assert len({getattr(folder, name) for name in names}) == len(names)
    # What docker expects in DOCKER_CERT_PATH.
    assert [path.name for path in (folder.ca, folder.cert, folder.key)] == ["ca.pem", "cert.pem", "key.pem"]


@pytest.mark.parametrize("spelling", spellings.ALL)
def test_one_folder_has_many_spellings(tmp_path: Path, spelling: spellings.Spell) -> None:
    store = tmp_path / "store"
    (store / "machines").mkdir(parents=True)
    other = Path(spelling(store))
    assert paths.same(store, other)
    assert paths.same(store / "machines" / "gone" / "qemu.pid", other / "machines" / "gone" / "qemu.pid")
    assert not paths.same(store / "machines" / "gone", other / "machines" / "lost")
    assert not paths.same(store, other / "machines")
    assert not paths.same(store / "machines", other / "gone")
    assert paths.below(other / "machines" / "dev" / "disk", store) == Path("machines/dev/disk")
    assert paths.below(other, store / "machines") is None


def test_a_store_with_dots_leads_through_no_other_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    monkeypatch.setenv(paths.STORE_VARIABLE, "../x/.machine")
    assert paths.store() == tmp_path / "x" / ".machine"
    monkeypatch.setenv(paths.STORE_VARIABLE, f"{tmp_path}/x/")
    assert paths.store() == tmp_path / "x"
