from pathlib import Path

import pytest

from machine import paths
from machine.paths import Home, Image


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
    home = Home(Path("/store/machines/dev"))
    assert (home.name, home.store, home / "disk") == ("dev", Path("/store"), Path("/store/machines/dev/disk"))
    names = [
        name for name, value in vars(Home).items() if isinstance(value, property) and name not in {"name", "store"}
    ]
    assert len({getattr(home, name) for name in names}) == len(names)
    # What docker expects in DOCKER_CERT_PATH.
    assert [path.name for path in (home.ca, home.cert, home.key)] == ["ca.pem", "cert.pem", "key.pem"]
