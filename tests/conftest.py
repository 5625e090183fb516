"""What every test may use: a store of its own, and the command line in this process or in one of its own."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from machine import acceleration, resources, run, spec
from machine.spec import Address, Machine
from tests import not_on_windows
from tests.fixture_types import Add, Invoke, Outcome, Spawn

# Whoever starts the tests in the background of a script has Ctrl-C ignored, also in what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# And nohup ignores this one, which a create then lives through.
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# An environment may forbid to keep what is compiled: each command that a test starts would compile all that it imports,
# half a second where it takes a sixth.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# The same examples each time, and none too slow on a busy host: a red run says that something was changed.
_CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("machine", deadline=None, derandomize=True, suppress_health_check=_CHECKS)
settings.load_profile("machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if sys.platform == "win32" else ():
        if reason := not_on_windows.why(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))


_prove = acceleration.proved


@functools.cache
def _proved_once(binary: str, accelerator: str) -> bool:
    """The real proof, once for all tests: where it fails it may take seconds, and each store of a test is a new one."""
    return bool(_prove(binary, accelerator, run.run))


FAKES = Path(__file__).parent / "fakes"
_FOREIGN = ("DOCKER_", "MACHINE_", "COMPOSE_")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and an environment without anything that steers us or docker. The driver `fake` can be found."""
    for key in os.environ:
        if key.startswith(_FOREIGN) or key.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(key)
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(folder))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setattr(acceleration, "proved", lambda binary, accelerator, _: _proved_once(binary, accelerator))
    return folder


@pytest.fixture
def add(store: Path) -> Add:
    def put(name: str = "default", *, state: str = "Stopped", **fields: Any) -> Machine:
        sizes = {"memory_mib": 2048, "cpus": 2, "disk_mib": 20000}
        asked: dict[str, Any] = {"driver": "fake", "uuid": "", "mac": "", "image": "", **sizes}
        number = len(list(store.glob("machines/*"))) + 2
        machine = Machine(**{"name": name, "address": Address(f"127.77.0.{number}"), **asked, **fields})
        home = store / "machines" / name
        home.mkdir(parents=True)
        (home / "machine.json").write_text(spec.dumps(machine))
        (store / "fake").mkdir(exist_ok=True)
        (store / "fake" / name).write_text(state)
        return machine

    return put


@pytest.fixture
def invoke(store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    from machine.cli import main

    def call(*words: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["machine", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return Outcome(code, *capfd.readouterr())

    return call


def _know_accelerator(store: Path) -> None:
    """Leave in the store what an earlier command would have: in each new one the proof takes up to 2 s of processor."""
    if store.is_dir() and (qemu := shutil.which(f"qemu-system-{resources.architecture()}")):
        acceleration.choose(qemu, store / "acceleration.json", run.run)


@pytest.fixture
def spawn(store: Path) -> Spawn:
    def call(*words: str | Path, env: dict[str, str] | None = None, python: tuple[str, ...] = ()) -> Outcome:
        if {"create", "doctor"} & set(words):
            _know_accelerator(store)
        done = subprocess.run(
            [sys.executable, *python, "-m", "machine", *words],
            env={**os.environ, "PYTHONPATH": str(FAKES), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=200,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call
