import dataclasses
from pathlib import Path

import pytest

from machine import paths
from machine.cluster import record
from machine.cluster.record import Cluster
from machine.errors import StoreDamaged, Usage
from machine.spec import Machine

TEMPLATE = Machine(*("lab", "lxc", "u", "52:54:00:00:00:01", "d1g", 512, 1, 1024), network="machines")
LAB = Cluster("lab", ("lab-m1",), ("lab-w1",), TEMPLATE)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.STORE_VARIABLE, str(tmp_path))
    return tmp_path


def test_new_nodes_get_the_lowest_free_numbers() -> None:
    larger = LAB.sized(3, 2)
    assert larger.nodes == ("lab-m1", "lab-m2", "lab-m3", "lab-w1", "lab-w2")
    gap = dataclasses.replace(larger, managers=("lab-m1", "lab-m3"))
    assert gap.sized(3, 2).managers == ("lab-m1", "lab-m2", "lab-m3")


def test_the_highest_numbers_go() -> None:

    assert LAB.sized(1, 12).sized(1, 10).workers[-1] == "lab-w10"


@pytest.mark.parametrize(("managers", "workers"), [(0, 3), (-1, 0), (8, 0), (1, -1)])
def test_sizes_that_cant_be(managers: int, workers: int) -> None:
    with pytest.raises(Usage):
        LAB.sized(managers, workers)


def test_it_is_kept_and_found_again() -> None:
    assert (record.names(), record.find("lab")) == ([], None)
    record.save(LAB)
    assert (record.names(), record.load("lab")) == (["lab"], LAB)
    with record.changing("lab"):
        record.remove("lab")
    assert record.names() == []
    assert list(record.folder().iterdir()) == []
    with pytest.raises(Usage, match="no cluster"):
        record.load("lab")


def test_the_store_holds_no_token(store: Path) -> None:
    record.save(LAB)
    assert "SWMTKN" not in (store / "clusters" / "lab.json").read_text()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "name": "lab"}', '{"format": 99}'])
def test_a_record_that_cant_be_read(store: Path, text: str) -> None:
    (store / "clusters").mkdir()
    (store / "clusters" / "lab.json").write_text(text)
    with pytest.raises(StoreDamaged):
        record.load("lab")


@pytest.mark.parametrize("name", ["", "Lab", "-a", "a/b", "a.b", "a" * 41, ".."])
def test_names_that_cant_be(name: str) -> None:
    with pytest.raises(Usage):
        record.check_name(name)
