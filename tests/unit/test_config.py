from pathlib import Path

import pytest

from machine import config
from machine.errors import Usage

KNOWN = ["driver", "memory", "engine_registry_mirror"]


def write(store: Path, text: str | bytes) -> None:
    (store / "config.toml").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_without_a_file_there_are_no_defaults(store: Path) -> None:
    assert config.defaults(KNOWN) == {}


def test_values_by_parameter_name(store: Path) -> None:
    write(store, 'driver = "qemu"\nmemory = 4096\nengine-registry-mirror = ["http://a", "http://b"]\n')
    assert config.defaults(KNOWN) == {
        "driver": "qemu",
        "memory": 4096,
        "engine_registry_mirror": ["http://a", "http://b"],
    }


@pytest.mark.parametrize("text", ["driver = ", "=", b'driver = "\xff"', "driver = 1\ndriver = 2"])
def test_a_file_that_cant_be_understood_is_named(store: Path, text: str | bytes) -> None:
    write(store, text)
    with pytest.raises(Usage, match=r"config\.toml"):
        config.defaults(KNOWN)


@pytest.mark.parametrize("text", ["memroy = 1", "[qemu]\naccelerator = 'tcg'"])
def test_an_unknown_option_is_refused(store: Path, text: str) -> None:
    write(store, text)
    with pytest.raises(Usage, match=r"there is no option --(memroy|qemu)"):
        config.defaults(KNOWN)
