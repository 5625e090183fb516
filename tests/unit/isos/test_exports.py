"""The tables of exported names, emptied in a program that gcc links as Debian links dockerd."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machine.isos.machineos import elf, exports

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc"), reason="needs gcc and programs of Linux"
)
NAMES = 400
PROGRAM = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

__thread int counter __asm__("runtime.tlsg") = 4;
int asked_by_a_library(void) { return 42; }
@GO@
int main(int argc, char **argv)
{
    (void)argc;
    int (*found)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "asked_by_a_library");
    printf("%d %d ", found ? found() : 0, dlsym(RTLD_DEFAULT, "main.f7") != NULL);
    printf("%d %s\\n", counter, argv[0] ? "ran" : "");
    return 0;
}
"""


@pytest.fixture(scope="module", params=["-pie", "-no-pie"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    functions = [f'int f{at}(void) __asm__("main.f{at}"); int f{at}(void) {{ return {at}; }}' for at in range(NAMES)]
    (folder / "p.c").write_text(PROGRAM.replace("@GO@", "\n".join(functions)), encoding="utf-8")
    code = "-fPIE" if request.param == "-pie" else "-fno-pie"
    argv = ["gcc", code, request.param, "-rdynamic", "-Wl,--hash-style=gnu", "p.c", "-o", "program", "-ldl"]
    subprocess.run(argv, cwd=folder, check=True)
    subprocess.run(["strip", "program"], cwd=folder, check=True)
    return folder / "program"


@pytest.fixture
def program(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "program"))


def said(program: Path) -> list[str]:
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()


def test_a_program_runs_without_the_names_of_go(program: Path) -> None:
    assert said(program) == ["42", "1", "4", "ran"]
    assert exports.empty(program) >= NAMES
    assert said(program) == ["42", "0", "4", "ran"]
    assert b"main.f8" not in program.read_bytes()


def test_its_size_its_mode_and_its_libraries_stay(program: Path, original: Path) -> None:
    program.chmod(0o750)
    exports.empty(program)
    assert program.stat().st_size == original.stat().st_size
    assert program.stat().st_mode & 0o777 == 0o750
    assert elf.needed(program) == elf.needed(original)


def test_the_loader_finds_each_name_of_c_by_its_hash(program: Path) -> None:
    exports.empty(program)
    tables = exports.read(program)
    assert tables is not None
    kept = {tables.name(symbol) for symbol in range(tables.first, exports.count(tables))}
    assert b"asked_by_a_library" in kept
    assert not any(name.startswith(b"main.f") for name in kept)


def test_nothing_is_left_to_do_the_second_time(program: Path) -> None:
    exports.empty(program)
    before = program.read_bytes()
    assert exports.empty(program) == 0
    assert program.read_bytes() == before


def test_what_is_no_program_stays(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    assert exports.empty(script) == 0
    assert script.read_text(encoding="utf-8") == "#!/bin/sh\n"
