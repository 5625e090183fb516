"""machine logs."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixture_types import Add, Invoke


@pytest.fixture
def console(add: Add, store: Path) -> Path:
    add()
    return store / "machines/default/console.log"


def test_the_console(invoke: Invoke, console: Path) -> None:
    console.write_bytes(b"one\r\n\x1b[1;31mtwo\x1b[0m\t\xc3\xa4\xff\x1b]0;title\x07\r\nthree")
    assert invoke("logs").out == "one\ntwo\tä\ufffd\nthree"
    assert invoke("logs", "-n", "1").out == "three"
    assert invoke("logs", "--tail", "2", "default").out == "two\tä\ufffd\nthree"
    assert invoke("logs", "-n", "0").out == ""


def test_the_run_before(invoke: Invoke, console: Path) -> None:
    console.with_name("console.log.1").write_text("before\n")
    assert invoke("logs", "--previous").out == "before\n"
    ended = invoke("logs")
    assert (ended.code, ended.out) == (1, "")
    assert "Next: machine start default" in ended.err
    assert invoke("logs", "--previous", "-f").code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
def test_follow_across_a_restart(console: Path) -> None:
    console.write_text("old\nlast\n", encoding="utf-8")
    argv = [sys.executable, "-m", "machine", "logs", "-f", "-n", "1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert _read(process.stdout) == b"last\n"
            with console.open("a", encoding="utf-8") as file:
                file.write("login: ")
            assert _read(process.stdout) == b"login: "
            console.replace(console.with_name("console.log.1"))
            console.write_text("anew\n", encoding="utf-8")
            assert _read(process.stdout) == b"anew\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130
            assert process.stderr.read() == b""
        finally:
            process.kill()


def _read(stream: Any) -> bytes:
    ready, _, _ = select.select([stream], [], [], 10)
    assert ready, "nothing came"
    return os.read(stream.fileno(), 65536)
