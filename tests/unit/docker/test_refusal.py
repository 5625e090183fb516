"""dockerd's refusal of its settings is read from the console of a guest that boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.docker import refusal
from machine.errors import EngineRefused

BTRFS = "failed to start daemon: error initializing graphdriver: driver not supported: btrfs"
UNKNOWN = (
    "unable to configure the Docker daemon with file /etc/docker/daemon.json: the following directives don't match any"
    " configuration option: nosuch"
)
SLOW = 'failed to start daemon: failed to dial "/run/containerd/containerd.sock": context deadline exceeded'
READY = "machineos: [ 30.00] docker is ready\n"


def end(reason: str) -> str:
    """dockerd ended once."""
    tag = "Nov 27 14:30:11 dev local0.info dockerd:"
    return (
        "machineos: [ 20.11] dockerd ended, its last words:\r\n"
        f'machineos: [ 20.12]   {tag} time="2026-11-27T14:30:11Z" level=info msg="Starting up"\r\n'
        f"machineos: [ 20.12]   {tag} {reason}\r\n"
    )


@pytest.mark.parametrize(
    ("console", "words"),
    [
        ("", ""),
        ("machineos: [  1.00] init is up\n", ""),
        (end(UNKNOWN), UNKNOWN),
        (end(BTRFS), ""),
        (end(BTRFS) + "some line of the kernel's\n" + end(BTRFS), BTRFS),
        (end(BTRFS) + end(UNKNOWN), UNKNOWN),
        (end(SLOW) * 3, ""),
        (end("invalid magic") * 2, "invalid magic"),
        (end('{"level":"info","msg":"stopped"}') * 2, ""),
        (end("level=info msg=stopped") * 3, ""),
        (end(BTRFS) * 2 + READY, ""),
        (end(BTRFS) * 2 + "machineos: [  1.00] init is up\n", ""),
        (READY + end(BTRFS) * 2, BTRFS),
    ],
)
def test_words(console: str, words: str) -> None:
    assert refusal.words(console) == words


def test_check(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    refusal.check(console)
    console.write_bytes(b"\xff" * 100_000 + b"\n" + (end(BTRFS) * 2).encode())
    with pytest.raises(EngineRefused) as caught:
        refusal.check(console, hint="machine ls")
    assert caught.value.message == f"dockerd refuses its settings: {BTRFS}"
    assert (caught.value.words, caught.value.hint) == (BTRFS, "machine ls")


@pytest.mark.parametrize(
    ("log", "words"),
    [(f"a\n{BTRFS}\nb\n{UNKNOWN}\n", UNKNOWN), (f"x {BTRFS}", BTRFS), (SLOW, ""), ("all is well", "")],
)
def test_fatal(log: str, words: str) -> None:
    assert refusal.fatal(log) == words
