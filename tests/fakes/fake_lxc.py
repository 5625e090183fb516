"""Fixtures for tests of the driver `lxc`: a machine, and a stand-in for LXC's programs and slirp4netns."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_fixtures import add_image
from machine.drivers.lxc import Lxc, container, driver, launch, layout, limits, mounts

from machine import helper
from machine.errors import ToolFailed
from machine.guest import seed
from machine.paths import Image, MachineFolder
from machine.run import Completed
from machine.spec import Address, Machine

UUID = "3d2c1b0a-0000-4000-8000-000000000001"


class Recorder:
    """Stands for run(): remembers each command; LXC's answer with the state that a test sets.

    "launch" makes the container run, and lxc-stop ends it, as `launch.launch` and LXC would do.
    """

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.state = "STOPPED"
        self.fails: dict[str, str] = {}
        self.loops = ""

    def __call__(self, argv: Sequence[str | Path], *, check: bool = True, **_: object) -> Completed:
        words = [str(word) for word in argv]
        self.ran.append(words)
        for word, why in self.fails.items():
            if word in words:
                if check:
                    raise ToolFailed(words, 1, why)
                return Completed(words, 1, "", why)
        return Completed(words, 0, self._answer(words), "")

    def _answer(self, words: list[str]) -> str:
        if words[0] == "launch":
            self.state = "RUNNING"
        if words[0] == "lxc-stop":
            self.state = "STOPPED"
        if words[0] in {"lxc-freeze", "lxc-unfreeze"}:
            self.state = "FROZEN" if words[0] == "lxc-freeze" else "RUNNING"
        if words[0] == "losetup":
            return self.loops
        if words[0] == "lxc-info":
            return "-1\n" if "-p" in words and self.state == "STOPPED" else "1\n" if "-p" in words else self.state
        if words[0] == "cp" or "sh" in words:
            shutil.copy(words[-2], words[-1])
        return "/dev/loop7\n" if "findmnt" in words else ""

    def calls(self, tool: str) -> list[list[str]]:
        return [words for words in self.ran if tool in words]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def lxc(store: Path, tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lxc]:
    """The driver of a machine that was created, and that is off."""
    about = add_image(tmp_path, "machineos", b"an operating system")
    Image(about.digest).root_offset.write_text("2048")
    folder = MachineFolder(store / "machines" / "dev")
    folder.path.mkdir(parents=True)
    machine = Machine("dev", "lxc", UUID, "", about.digest, 1024, 2, 4096, address=Address("127.77.0.2"))
    monkeypatch.setattr(
        seed, "read", lambda path: {"meta-data": "x", "machineos/hostname": "dev\n", "machineos/tls/ca.pem": "CA"}
    )
    monkeypatch.setattr(container, "DHCP", 0.0)
    monkeypatch.setattr(helper, "begin", lambda *words: None)
    monkeypatch.setattr(helper, "ensure", lambda *words: None)
    monkeypatch.setattr(limits, "GROUPS", tmp_path / "groups")
    (tmp_path / "groups/memory").mkdir(parents=True)
    monkeypatch.setattr(mounts, "try_to_adorn", lambda folder, ids: None)
    monkeypatch.setattr(mounts, "apart", lambda work: work())
    monkeypatch.setattr(launch, "launch", lambda layout: recorder(["launch", layout.name]))
    # Short, because a socket lies there.
    with tempfile.TemporaryDirectory(prefix="machine-") as containers:
        monkeypatch.setattr(layout, "CONTAINERS", Path(containers) / "lxc")
        yield Lxc(machine, folder, recorder)


class Api:
    """slirp4netns' API, as version 1.2 answers: `return` is around the answers to changes, not around a list."""

    def __init__(self, path: Path) -> None:
        self.forwards: dict[int, dict[str, Any]] = {}
        self.refuses = ""
        self.wrapped = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                question = json.loads(b"".join(iter(lambda: connection.recv(4096), b"")))  # noqa: B023
                answer = self._answer(question["execute"], question.get("arguments", {}))
                connection.sendall(json.dumps(answer).encode())

    def _answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if command == "list_hostfwd":
            entries = [{"id": number, **forward} for number, forward in self.forwards.items()]
            return {"return": {"entries": entries}} if self.wrapped else {"entries": entries}
        if command == "remove_hostfwd":
            self.forwards.pop(arguments["id"])
            return {"return": {}}
        if self.refuses:
            return {"error": {"desc": self.refuses}}
        number = max(self.forwards, default=0) + 1
        self.forwards[number] = arguments
        return {"return": {"id": number}}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        served = Api(Path(folder) / "api.sock")
        yield served
        served.close()


__all__ = ["Api", "Recorder", "api", "driver", "lxc", "recorder"]
