"""A store of its own for tests, the real command line and docker client on it, and what is left of it on this host."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import psutil

BEGAN = time.monotonic()
# Seconds. Others may use this host's processors, so a deadline is far more than what a thing takes.
COMMAND = 240.0
CREATE = 540.0
HEARTBEAT = 30.0
# A store begins so.
ODD = "m ü,'[$%&;] "
# The last two: requests (docker-py, docker-compose) then believes that bundle, and not the CA of DOCKER_CERT_PATH.
_STEERING = ("DOCKER_", "MACHINE_", "COMPOSE_", "QEMU_", "ENGINE_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

say: Callable[[str], None] = print  # conftest.py puts one in its place that pytest doesn't capture


@dataclass(frozen=True)
class Done:
    argv: list[str]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __str__(self) -> str:
        return f"$ {' '.join(self.argv)}\nexit code {self.code} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


class Options(TypedDict, total=False):
    """How `execute` runs a command."""

    env: dict[str, str]
    input: bytes | None
    code: int | None
    timeout: float
    cwd: Path | None


def environment(**extra: str) -> dict[str, str]:
    """Ours, without anything that steers machine, docker or compose, and without proxies."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_STEERING) and not key.lower().endswith("_proxy")
    }
    return {**kept, "LC_ALL": "C.UTF-8", **extra}


def execute(
    argv: Sequence[str | Path],
    *,
    env: dict[str, str],
    input: bytes | None = None,
    code: int | None = 0,
    timeout: float = COMMAND,
    cwd: Path | None = None,
) -> Done:
    """Run a command to its end; it must end with that exit code (None: any) within timeout seconds."""
    words = [str(word) for word in argv]
    began = time.monotonic()
    # Files: a process that a killed command leaves behind would keep pipes open, and us waiting.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as stdin:
        stdin.write(input or b"")
        stdin.seek(0)
        with subprocess.Popen(words, env=env, stdin=stdin, stdout=out, stderr=err, cwd=cwd) as process:
            ended = _wait(process, words, timeout)
        out.seek(0)
        err.seek(0)
        said, complained = (file.read().decode("utf-8", "replace") for file in (out, err))
    done = Done(words, process.returncode, said, complained, time.monotonic() - began)
    assert ended, f"no end within {timeout:.0f} s: {done}"
    assert code is None or done.code == code, str(done)
    return done


def _wait(process: subprocess.Popen[bytes], words: list[str], timeout: float) -> bool:
    began = time.monotonic()
    while (left := timeout - (time.monotonic() - began)) > 0:
        try:
            process.wait(min(HEARTBEAT, left))
        except subprocess.TimeoutExpired:
            say(f"{time.monotonic() - began:.0f} s: {' '.join(words)[:100]}")
        except BaseException:
            process.kill()
            raise
        else:
            return True
    process.kill()
    return False


def until(probe: Callable[[], object], what: str, timeout: float = 60.0) -> float:
    """Wait until probe returns something true; returns the seconds that it took."""
    began = shown = time.monotonic()
    while not probe():
        now = time.monotonic()
        assert now - began < timeout, f"{what}: not within {timeout:.0f} s"
        if now - shown > HEARTBEAT:
            say(f"{now - began:.0f} s: waiting for {what}")
            shown = now
        time.sleep(0.05)
    return time.monotonic() - began


class Store:
    """A folder for machines. Its path is short, because sockets lie in it, and odd: each program must take it."""

    def __init__(self, images: Path, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix=ODD, dir="/tmp"))
        self.env = environment(
            MACHINE_STORAGE_PATH=str(self.folder),
            MACHINE_IMAGES_PATH=str(images),
            DOCKER_CONFIG=f"{self.folder}/docker",
        )
        self.addresses: set[str] = set()

    def home(self, name: str) -> Path:
        return self.folder / "machines" / name

    def machine(self, *words: str | Path, **options: Unpack[Options]) -> Done:
        """Run the command line; options as for `execute`."""
        timeout = CREATE if words[0] in {"create", "start", "restart"} else COMMAND
        options.setdefault("env", self.env)
        options.setdefault("timeout", timeout)
        return execute(self.argv(*words), **options)

    def argv(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "machine", *map(str, words)]

    @contextlib.contextmanager
    def begun(self, *words: str) -> Iterator[Begun]:
        """The command line at work, in a process group of its own, as a job of a shell; killed at the end."""
        begun = Begun(self.argv(*words), self.env)
        try:
            yield begun
        finally:
            begun.close()

    def create(self, name: str, *options: str) -> Done:
        say(f"machine create {' '.join(options)} {name}")
        done = self.machine("create", *options, name)
        say(f"{name} was made in {done.seconds:.0f} s")
        self.note(name)
        return done

    def note(self, name: str) -> str:
        """Remember the machine's address, so that what is left on it is found later."""
        address = json.loads((self.home(name) / "machine.json").read_text())["address"]["host"]
        self.addresses.add(address)
        return str(address)

    def docker_env(self, name: str) -> dict[str, str]:
        """The environment of a bash that has evaluated what `machine env` printed."""
        command = f'eval "$("{sys.executable}" -m machine env --shell bash {name})" && env -0'
        done = execute(["bash", "-c", command], env=self.env)
        return dict(item.split("=", 1) for item in done.out.split("\0") if item)

    def consoles(self) -> list[Path]:
        """What the guests wrote, in this run and in the one before."""
        return sorted(self.folder.glob("machines/*/console.log*"))

    def processes(self) -> list[psutil.Process]:
        """Every process that has a path of this store in its command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def qemu(self, name: str) -> psutil.Process:
        return psutil.Process(int((self.home(name) / "qemu.pid").read_text()))

    def left_over(self) -> list[str]:
        """What is left of machines: processes, folders, ports. Templates and certificates belong to the store."""
        folders = [path for path in (self.folder / "machines").glob("*") if path.name != ".lock"]
        processes = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it ends at this moment
                processes.append(f"{process.pid} {' '.join(process.cmdline())[:150]}")
        return [*processes, *map(str, folders), *(f"{ip}:{port}" for ip, port in listening() if ip in self.addresses)]

    def assert_nothing_left(self) -> None:
        # The helper that forwards ports ends by itself when its QEMU has, and the last thread of that closes its ports.
        deadline = time.monotonic() + 20
        while left := self.left_over():
            assert time.monotonic() < deadline, f"this is left: {left}"
            time.sleep(0.1)

    def close(self) -> None:
        """Remove all machines by the command line, see that nothing is left, and remove the folder."""
        try:
            names = self.machine("ls", "-q").lines
            if names:
                self.machine("rm", "-y", *names)
            self.assert_nothing_left()
        finally:
            for process in self.processes():
                process.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


class Begun:
    """A command at work."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.argv = argv
        self.out = tempfile.TemporaryFile()  # noqa: SIM115
        self.err = tempfile.TemporaryFile()  # noqa: SIM115
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, start_new_session=True
        )

    def text(self) -> str:
        """What it has written to stderr."""
        return os.pread(self.err.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def output(self) -> str:
        return os.pread(self.out.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def says(self, text: str, timeout: float = 120.0) -> None:
        """Wait until it has written that to stderr."""
        until(lambda: text in self.text() or self.process.poll() is not None, f'"{text}"', timeout)
        assert text in self.text(), f"it ended with {self.process.poll()}: {self.text()}"

    def interrupt(self) -> None:
        """Ctrl-C reaches every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, timeout: float = 120.0) -> Done:
        assert _wait(self.process, self.argv, timeout), f"no end within {timeout:.0f} s: {self.text()}"
        return Done(self.argv, self.process.returncode, self.output(), self.text(), time.monotonic() - self.began)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.err.close()


def in_terminal(argv: Sequence[str], typed: bytes, *, env: dict[str, str], timeout: float = COMMAND) -> tuple[int, str]:
    """Run a command on a pseudo-terminal and type into it; its exit code and what it showed."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], list(argv), env)
    shown, deadline = b"", time.monotonic() + timeout
    try:
        os.write(terminal, typed)
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    block = os.read(terminal, 65536)
                except OSError:  # Linux's way to say that the other end is closed
                    break
                if not block:
                    break
                shown += block
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode("utf-8", "replace")


def monitor(home: Path, command: str) -> None:
    """Give QEMU a command behind the back of `machine`."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as lines:
        client.settimeout(20)
        client.connect(str(home / "qmp.sock"))
        lines.readline()
        for word in ("qmp_capabilities", command):
            lines.write(json.dumps({"execute": word}).encode() + b"\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline())):
                assert "error" not in answer, answer


def listening() -> set[tuple[str, int]]:
    """The addresses and ports of this host that take TCP connections or UDP packets."""
    return {
        (found.laddr.ip, found.laddr.port)
        for found in psutil.net_connections("inet4")
        if found.laddr and (found.status == psutil.CONN_LISTEN or (found.type == socket.SOCK_DGRAM and not found.raddr))
    }


@contextlib.contextmanager
def taken(host: str, port: int) -> Iterator[None]:
    """A port that another program of this host has."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, port))
        other.listen()
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
