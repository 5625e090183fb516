import json
from pathlib import Path

import pytest

from machine import spec
from machine.errors import StoreDamaged, Usage
from machine.spec import Address, Engine, Machine

FILE = Path("machines/dev/machine.json")
MACHINE = Machine(
    name="dev",
    driver="qemu",
    uuid="8c4f",
    mac="52:54:00:00:00:01",
    image="ab12",
    memory_mib=2048,
    cpus=2,
    disk_mib=20480,
    tls=False,
    tls_sans=("dev.test",),
    engine=Engine(options=("log-driver=local",), labels=("stage=test",)),
    address=Address("127.77.0.2", ssh_port=2222),
    options={"accelerator": "tcg", "share": ("a", "b"), "fast": True, "slots": 3, "none": None},
    created="2024-01-01T00:00:00+00:00",
)


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(spec.dumps(MACHINE)), **fields})


def test_what_was_written_is_read() -> None:
    assert spec.loads(spec.dumps(MACHINE), FILE) == MACHINE


def test_a_machine_may_have_no_address() -> None:
    machine = Machine("a", "d", "u", "m", "", 1, 1, 1)
    assert spec.loads(spec.dumps(machine), FILE) == machine


def test_fields_that_a_later_version_of_the_format_added_may_be_absent() -> None:
    data = json.loads(spec.dumps(MACHINE))
    del data["created"], data["options"], data["engine"]
    assert spec.loads(json.dumps(data), FILE).created == ""


def test_a_machine_of_version_0_1_is_read() -> None:
    data = json.loads(spec.dumps(MACHINE))
    del data["hosts"], data["sysctls"], data["host_network_ports"]
    assert spec.loads(json.dumps({**data, "format": 1}), FILE) == MACHINE


def test_version_0_1_takes_a_machine_for_a_newer_ones_and_not_for_damaged() -> None:
    """It reads format 1, and advises to remove a machine with fields that it doesn't know."""
    assert json.loads(spec.dumps(MACHINE))["format"] > 1


@pytest.mark.parametrize("length", [0, 1, 40, -3])
def test_a_truncated_file_is_damaged_and_named(length: int) -> None:
    with pytest.raises(StoreDamaged, match=r"machines/dev/machine\.json") as caught:
        spec.loads(spec.dumps(MACHINE)[:length], FILE)
    assert caught.value.hint.endswith("machine rm -f dev")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "{}", '{"format": "1"}', '{"Driver": {}, "Name": "dev"}'])
def test_json_of_another_program_is_refused(text: str) -> None:
    with pytest.raises(StoreDamaged, match="wasn't written by machine"):
        spec.loads(text, FILE)


def test_nested_json_without_end_is_refused() -> None:
    with pytest.raises(StoreDamaged, match="damaged"):
        spec.loads("[" * 100_000, FILE)


def test_a_newer_format_asks_for_an_upgrade() -> None:
    with pytest.raises(StoreDamaged, match="newer version") as caught:
        spec.loads(changed(format=spec.FORMAT + 1, what="ever"), FILE)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_mib": "2048"},
        {"memory_mib": True},
        {"memory_mib": 1.5},
        {"memory_mib": None},
        {"name": 3},
        {"tls": 1},
        {"tls_sans": "a"},
        {"address": "127.0.0.1"},
        {"address": {}},
        {"address": {"host": "a", "more": 1}},
        {"engine": None},
        {"options": []},
        {"unknown": 1},
    ],
)
def test_a_field_of_the_wrong_kind_is_damage(fields: dict[str, object]) -> None:
    with pytest.raises(StoreDamaged, match="damaged"):
        spec.loads(changed(**fields), FILE)


def test_a_missing_field_is_damage() -> None:
    data = json.loads(spec.dumps(MACHINE))
    del data["uuid"]
    with pytest.raises(StoreDamaged, match="uuid"):
        spec.loads(json.dumps(data), FILE)


@pytest.mark.parametrize("name", ["default", "a", "A-1", "dev.example.org", "0", "a" * 63])
def test_good_names(name: str) -> None:
    spec.check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/x", "a/b", "a\\b", "-a", "--help", ".a", "a b", "a\n", "ä", "a_b", "a" * 64, "a" * 300],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(Usage) as caught:
        spec.check_name(name)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("host", "url"), [("127.77.0.2", "tcp://127.77.0.2:2375"), ("fd00::2", "tcp://[fd00::2]:2375")]
)
def test_an_ipv6_address_stands_in_brackets(host: str, url: str) -> None:
    assert Address(host).url == url


@pytest.mark.parametrize("name", ["default", "a", "A-1", "dev.example.org", "0", "console", "com", "lpt10", "a" * 63])
def test_names_for_new_machines(name: str) -> None:
    spec.check_new_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("localhost", "this computer"),
        ("LocalHost", "this computer"),
        ("127.0.0.1", "IP address"),
        ("10.1", "IP address"),
        ("999.1.1.1", "IP address"),
        ("con", "device"),
        ("NUL.txt", "device"),
        ("lpt1", "device"),
        ("web.", "host name"),
        ("a..b", "host name"),
        ("web-", "host name"),
        ("a.-b", "host name"),
    ],
)
def test_names_that_other_programs_take_for_something_else(name: str, why: str) -> None:
    spec.check_name(name)  # an older machine of that name goes on working
    with pytest.raises(Usage, match=why):
        spec.check_new_name(name)


def test_a_file_of_an_earlier_version_has_no_settings_of_the_guest() -> None:
    data = json.loads(spec.dumps(MACHINE))
    del data["hosts"], data["sysctls"]
    machine = spec.loads(json.dumps(data), FILE)
    assert (machine.hosts, machine.sysctls) == ((), ())
