from pathlib import Path

import pytest
from machine.isos.machineos import programs


@pytest.mark.parametrize("folders", [["usr/lib", "usr/lib64"], ["usr/lib"]], ids=["x86_64", "aarch64"])
def test_the_links_for_the_linker_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: list[str]
) -> None:
    monkeypatch.setattr(programs, "compiler", lambda arch: "gcc")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    once = programs.toolchain(tmp_path, "aarch64")
    assert programs.toolchain(tmp_path, "aarch64") == once
    assert {path.name for path in tmp_path.iterdir() if path.is_symlink()} == {"lib", "lib64"}
