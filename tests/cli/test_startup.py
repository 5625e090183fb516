"""What the verbs that run in prompts and profiles import: their time is mostly that."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixture_types import Add, Spawn

# Each takes 5 to 60 ms, where all of `machine env` takes 45.
HEAVY = {
    "asyncio",
    "concurrent.futures",
    "cryptography",
    "filelock",
    "http.client",
    "importlib.metadata",
    "jinja2",
    "logging",
    "paramiko",
    "psutil",
    "pycdlib",
    "rich",
    "ssl",
}


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        (
            ["env"],
            {
                "click",
                "machine.registry",
                "machine.driver",
                "machine.progress",
                "machine.run",
                "subprocess",
                "random",
                "tempfile",
            },
        ),
        (["env", "-u"], {"machine.registry", "subprocess"}),
        (["config"], {"machine.progress", "machine.registry", "subprocess"}),
        (["ip"], {"click", "machine.progress", "machine.registry", "shutil", "subprocess"}),
        (["url", "default"], {"click", "machine.progress", "machine.registry", "shutil", "subprocess"}),
        (["active"], {"click"}),
        (["inspect", "-f", "{{.Driver.IPAddress}}"], {"machine.registry", "subprocess"}),
        (["version"], {"machine.registry", "subprocess"}),
        (["ls", "-q"], {"machine.registry", "subprocess"}),
        (["ls"], set()),
        (["status"], set()),
        (["logs", "-n", "1"], {"machine.registry", "subprocess"}),
        (["--help"], {"machine.store", "subprocess"}),
    ],
    # Sets have no order, and two workers must agree on the names.
    ids=lambda words: " ".join(sorted(words) if isinstance(words, set) else words),
)
def test_imports(
    spawn: Spawn, add: Add, store: Any, monkeypatch: pytest.MonkeyPatch, verb: list[str], more: set[str]
) -> None:
    machine = add(state="Running" if verb == ["active"] else "Stopped")
    monkeypatch.setenv("DOCKER_HOST", machine.address.url if machine.address else "")
    (store / "machines/default/console.log").write_text("x\n")
    ended = spawn(*verb, python=("-X", "importtime"))
    assert ended.code == 0
    imported = {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}
    assert "machine.cli" in imported
    assert imported & (HEAVY | more) == set()
