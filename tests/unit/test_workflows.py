"""The workflow files of GitHub: they name what is there, may do little, and wait for nothing for ever."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    return found


def commands(file: Path) -> str:
    return "\n".join(step.get("run", "") for job in jobs(file).values() for step in job["steps"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
class TestWorkflow:
    def test_each_job_ends_and_each_action_has_a_version(self, file: Path) -> None:
        for job in jobs(file).values():
            assert 0 < job["timeout-minutes"] <= 120
            for step in job["steps"]:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1"))

    def test_a_job_may_read_unless_it_says_more(self, file: Path) -> None:
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}

    def test_commands_name_no_host_and_take_no_text_of_others(self, file: Path) -> None:
        assert "://" not in commands(file)
        assert "${{" not in commands(file), "take it from the environment: a branch's name is somebody's text"

    def test_what_make_is_to_do_is_in_the_makefile(self, file: Path) -> None:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in re.findall(r"^make (\S+)", commands(file), re.MULTILINE):
            assert f"\n{target}: " in makefile


def test_there_is_one_for_tests_and_one_for_releases() -> None:
    assert [file.name for file in FILES] == ["release.yml", "test.yml"]


def test_the_tests_run_on_each_platform() -> None:
    found = jobs(ROOT / ".github/workflows/test.yml")
    systems = {found["linux"]["runs-on"], *found["elsewhere"]["strategy"]["matrix"]["os"]}
    assert {name.partition("-")[0] for name in systems} == {"ubuntu", "macos", "windows"}
