from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from machine.docker import liveness
from machine.paths import MachineFolder


@pytest.fixture
def folder(tmp_path: Path) -> MachineFolder:
    return MachineFolder(tmp_path)


def age(folder: MachineFolder, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / liveness.NOTE, (then, then))


def test_an_answer_counts_for_a_while(folder: MachineFolder) -> None:
    assert liveness.version(folder) == ""
    liveness.note(folder, "28.5.1")
    assert liveness.version(folder) == "28.5.1"
    for seconds in (liveness.LASTS + 1, -600):
        age(folder, seconds)
        assert liveness.version(folder) == "", seconds
    liveness.note(folder, "28.5.1")
    assert liveness.version(folder) == "28.5.1"
    liveness.forget(folder)
    assert liveness.version(folder) == ""
    liveness.forget(folder)


def test_the_next_answer_touches_the_file_only(folder: MachineFolder) -> None:
    liveness.note(folder, "28.5.1")
    file = (folder / liveness.NOTE).stat().st_ino
    age(folder, 60)
    liveness.note(folder, "28.5.1")
    assert (folder / liveness.NOTE).stat().st_ino == file
    liveness.note(folder, "29.0.0")
    assert liveness.version(folder) == "29.0.0"


def test_what_isnt_docker_is_not_noted(folder: MachineFolder) -> None:
    liveness.note(folder, "")
    assert not (folder / liveness.NOTE).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 28}', "{}", "\0"])
def test_what_others_wrote_there_says_nothing(folder: MachineFolder, text: str) -> None:
    (folder / liveness.NOTE).write_text(text, encoding="utf-8")
    assert liveness.version(folder) == ""
