"""docs/reference/verbs.md and the man pages are what the program says now."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from machine.cli import VERBS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "verbs.md"
MAN = ROOT / "docs" / "man"


def generate(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "docs.generator", *words]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_it_is_current_on_every_host(tmp_path: Path) -> None:
    """Neither the home folder, nor defaults from the environment, nor the width of the terminal are in it."""
    strange = {"HOME": str(tmp_path), "MACHINE_DRIVER": "none", "MACHINE_MEMORY": "9G", "COLUMNS": "50"}
    done = generate("--check", env=strange)
    assert done.returncode == 0, f"run `make docs`, and commit what it writes:\n{done.stdout}{done.stderr}"


def test_each_verb_has_a_section_and_a_man_page() -> None:
    sections = set(re.findall(r"^## machine (\S+)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    assert sections == VERBS.keys()
    assert {page.stem for page in MAN.glob("*.1")} == {"machine", *(f"machine-{verb}" for verb in VERBS)}


def test_it_names_every_variable_of_ours_that_the_program_knows() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for file in [*(ROOT / "machine").rglob("*.py"), *(ROOT / "drivers").rglob("*.py")]:
        # With an underscore in front they are between the completion's script and the program.
        for variable in re.findall(r'"(MACHINE_[A-Z_]+)"', file.read_text(encoding="utf-8")):
            assert f"`{variable}`" in text, f"{file}: add {variable} to docs/generator/pages.py"


@pytest.mark.skipif(not shutil.which("groff"), reason="groff isn't installed")
def test_roff_has_nothing_to_say_against_the_pages() -> None:
    pages = sorted(MAN.glob("*.1"))
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", *pages], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "machine create" in re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
