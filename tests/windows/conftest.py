"""The Windows that the tests of this folder share, and a store in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.windows import rigs
from tests.windows.rig import Amiss, Ended, Rig, why_not, windows_path


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    if reason := why_not():
        pytest.skip(reason)
    try:
        with rigs.used() as rig:
            yield rig
    except Amiss as error:
        # Nothing is known of the product.
        pytest.skip(f"the Windows to test with doesn't work: {error}")


@dataclass(frozen=True)
class Store:
    """A store of machines, as the programs of Windows see it."""

    rig: Rig
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def machine(
        self,
        *words: str | Path,
        code: int | None = 0,
        console: bool = False,
        encoding: str = "utf-8",
        **extra: str,
    ) -> Ended:
        env = {**self.env, **extra}
        return self.rig.machine(*words, env=env, code=code, console=console, encoding=encoding)

    def python(self, program: str, **extra: str) -> Ended:
        return self.rig.python("-c", program, env={**self.env, **extra})


@pytest.fixture(scope="module")
def store(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """At a path with a blank, an umlaut and characters that no Western code page has."""
    folder = tmp_path_factory.mktemp("windows") / "Jürgen Ł 日本"
    folder.mkdir()
    env = {
        "MACHINE_STORAGE_PATH": windows_path(folder / "store"),
        "VBOX_USER_HOME": windows_path(folder / "virtualbox"),
        "WINEPATH": "C:\\Program Files\\Docker",
        "DOCKER_CONFIG": windows_path(folder / "docker"),
    }
    return Store(rig, folder, env)
