from pathlib import Path

import pytest

from machine import config
from machine.config import Kind
from machine.errors import Usage

KNOWN = {
    "driver": Kind.VALUE,
    "memory": Kind.VALUE,
    "engine_registry_mirror": Kind.LIST,
    "no_tls": Kind.SWITCH,
}


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


def test_what_is_hidden_from_machines_is_no_option(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.hidden(store) == []
    monkeypatch.setenv("HOME", str(tmp_path))
    write(store, 'driver = "qemu"\nmount-hide = ["~/.aws", "/srv/keys"]\n')
    assert config.hidden(store) == [tmp_path / ".aws", Path("/srv/keys")]
    assert config.defaults(KNOWN) == {"driver": "qemu"}


@pytest.mark.parametrize("text", ['mount-hide = "~/.aws"', "mount-hide = [1]", 'mount-hide = [".aws"]', "="])
def test_a_list_that_cant_be_understood_hides_nothing_in_silence(store: Path, text: str) -> None:
    write(store, text)
    with pytest.raises(Usage, match=r"config\.toml"):
        config.hidden(store)


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_editors_of_windows_write_is_read(store: Path, form: str, end: str) -> None:
    mark = b"\xff\xfe" if form == "utf-16-le" else b""
    write(store, mark + f'driver = "bücher"{end}memory = 4096{end}'.encode(form))
    assert config.defaults(KNOWN) == {"driver": "bücher", "memory": 4096}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("memory = [1]", "it must be a text or a number"),
        ('driver = "a\\u0000"', "it must be a text or a number"),
        ("memory = true", "it must be a text or a number"),
        ("driver = 2024-01-01", "it must be a text or a number"),
        ('no-tls = "yes"', "it must be true or false"),
        ("no-tls = 1", "it must be true or false"),
        ('engine-registry-mirror = "http://a"', "it must be a list of texts"),
        ("engine-registry-mirror = [1]", "it must be a list of texts"),
        ("[driver]", "it must be a text or a number"),
        ("[[engine-registry-mirror]]", "it must be a list of texts"),
    ],
)
def test_a_value_of_another_type_is_named(store: Path, line: str, says: str) -> None:
    write(store, line)
    with pytest.raises(Usage, match=says) as raised:
        config.defaults(KNOWN)
    assert raised.value.message.startswith(f"{store / 'config.toml'}: ")
