"""guest.py FILE FOLDER: plays the guest of one virtual machine of the stand-in, until that isn't running any more.

FILE is JSON from vboxmanage.py, which starts this as a process of Linux; FOLDER gets a file with its process id. Who
the guest is comes from the seed ISO in its drives, as for a real machineos: SSH with the seed's host key for the keys
that it authorizes, Docker's API (/_ping, /version, /info, /events, an empty list of containers) on the guest's ports
2375 and 2376, by mutual TLS unless the seed says no-tls. Any other port answers HTTP with a line of text. The NAT rules
are followed while it runs. Commands come from SSH to `sh`, as the user nobody, in an empty folder, with a few programs
on PATH: sudo and poweroff among them do no harm. There is no pty, scp or sftp.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import paramiko.common as ssh_words
import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

NOBODY = 65534
PROGRAMS = (
    *("sh", "cat", "echo", "ls", "id", "uname", "env", "true", "false", "sleep", "head", "tail", "wc", "grep", "sed"),
    *("sort", "mkdir", "rm", "cp", "mv", "touch", "tee", "seq", "dd", "date", "df"),
)
STUBS = {
    "sudo": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "poweroff": "exit 0",
    "reboot": "exit 0",
    "docker": 'echo "Docker version 26.1.5, build a72d7cd"',
}
VERSION = {"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}
PAUSE = 0.2


def read_seed(isos: list[str]) -> dict[str, str]:
    """The files below machineos/ in the first ISO that is a seed by its label."""
    for path in isos:
        iso = pycdlib.PyCdlib()
        try:
            iso.open(path)
        except (OSError, PyCdlibException):
            continue
        try:
            if iso.pvd.volume_identifier.strip() == b"CIDATA":
                return files(iso)
        finally:
            iso.close()
    return {}


def files(iso: pycdlib.PyCdlib) -> dict[str, str]:
    found = {}
    for folder, _, inside in iso.walk(rr_path="/machineos"):
        for name in inside:
            content = io.BytesIO()
            iso.get_file_from_iso_fp(content, rr_path=f"{folder.rstrip('/')}/{name}")
            found[f"{folder}/{name}".removeprefix("/machineos/")] = content.getvalue().decode()
    return found


class Listener:
    """A port of the host, each connection to which is handed to serve in a thread."""

    def __init__(self, host: str, port: int, serve: Callable[[socket.socket], None]) -> None:
        self.serve = serve
        self.socket = socket.create_server((host, port), backlog=64)
        self.open: set[socket.socket] = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.open.add(connection)
            threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection: socket.socket) -> None:
        try:
            self.serve(connection)
        except (OSError, EOFError, paramiko.SSHException):
            pass
        finally:
            self.open.discard(connection)
            connection.close()

    def close(self) -> None:
        # shutdown wakes accept; close alone doesn't.
        for one in (self.socket, *list(self.open)):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Shell(paramiko.ServerInterface):
    def __init__(self, keys: set[str], home: Path, environment: dict[str, str]) -> None:
        self.keys, self.home, self.environment = keys, home, environment

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == "docker" and key.get_base64() in self.keys
        return ssh_words.AUTH_SUCCESSFUL if known else ssh_words.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return ssh_words.OPEN_SUCCEEDED if kind == "session" else ssh_words.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self.start(channel, ["-c", os.fsdecode(command)])

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self.start(channel, [])

    def check_channel_pty_request(self, channel: paramiko.Channel, *_: Any) -> bool:
        return True

    def start(self, channel: paramiko.Channel, words: list[str]) -> bool:
        # The answer to the request has to be sent before `true` can have closed the channel: paramiko sends it next.
        threading.Timer(0.2, self.run, (channel, words)).start()
        return True

    def run(self, channel: paramiko.Channel, words: list[str]) -> None:
        nobody = NOBODY if os.geteuid() == 0 else None
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            ["/bin/sh", *words],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.home,
            env=self.environment,
            user=nobody,
            group=nobody,
            extra_groups=None if nobody is None else [],
        )

        assert process.stdin
        assert process.stdout
        assert process.stderr
        stdin = process.stdin

        def feed() -> None:
            try:
                while chunk := channel.recv(1 << 15):
                    stdin.write(chunk)
                    stdin.flush()
                stdin.close()
            except OSError:
                pass

        def pump(source: int, send: Callable[[bytes], None]) -> None:
            try:
                while chunk := os.read(source, 1 << 15):
                    send(chunk)
            except OSError:
                pass

        threading.Thread(target=feed, daemon=True).start()
        sides = [(process.stdout.fileno(), channel.sendall), (process.stderr.fileno(), channel.sendall_stderr)]
        pumps = [threading.Thread(target=pump, args=side, daemon=True) for side in sides]
        for thread in pumps:
            thread.start()
        code = process.wait()
        for thread in pumps:
            thread.join(2)
        try:
            channel.send_exit_status(code if code >= 0 else 128 - code)
            channel.close()
        except (OSError, EOFError):
            pass


class Guest:
    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.seed = read_seed(told["isos"])
        self.listeners: dict[str, Listener] = {}
        self.refused: set[str] = set()
        self.work = Path(tempfile.mkdtemp(prefix="machine-test-guest-"))
        self.home = self.work / "home"
        self.began = time.time()
        # The daemon's own, as long as the machine lives.
        self.id = str(uuid.uuid5(uuid.UUID(told["uuid"]), "engine"))
        self.environment = self.make_home()
        self.context = self.make_context()

    def make_home(self) -> dict[str, str]:
        programs = self.work / "bin"
        for folder in (programs, self.home):
            folder.mkdir()
        for name in PROGRAMS:
            if found := shutil.which(name):
                (programs / name).symlink_to(found)
        for name, text in {**STUBS, "hostname": f"echo {self.hostname}"}.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        self.work.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(self.home, NOBODY, NOBODY)
        return {"PATH": str(programs), "HOME": str(self.home), "USER": "docker", "LANG": "C.UTF-8"}

    @property
    def hostname(self) -> str:
        return self.seed.get("hostname", str(self.told["name"])).strip()

    def make_context(self) -> ssl.SSLContext | None:
        if "no-tls" in self.seed or "tls/server.pem" not in self.seed:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = self.work / "server.pem"
        chain.touch(0o600)
        chain.write_text(self.seed["tls/server-key.pem"] + self.seed["tls/server.pem"])
        context.load_cert_chain(chain)
        context.load_verify_locations(cadata=self.seed["tls/ca.pem"])
        context.verify_mode = ssl.CERT_REQUIRED
        chain.unlink()
        return context

    # What it serves

    def ssh(self, connection: socket.socket) -> None:
        keys = {line.split()[1] for line in self.seed.get("authorized_keys", "").splitlines() if len(line.split()) > 1}
        transport = paramiko.Transport(connection)
        key = io.StringIO(self.seed["ssh_host_ed25519_key"])
        transport.add_server_key(paramiko.Ed25519Key.from_private_key(key))
        transport.start_server(server=Shell(keys, self.home, self.environment))
        channels: list[paramiko.Channel] = []  # paramiko closes one that nobody holds
        while transport.is_active():
            channels = [channel for channel in (*channels, transport.accept(1)) if channel and not channel.closed]

    def docker(self, connection: socket.socket) -> None:
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True)
        self.http(connection, self.api)

    def api(self, path: str) -> Any:
        answers = {
            "/_ping": "OK",
            "/version": VERSION,
            "/containers/json": [],
            "/images/json": [],
            "/info": {"ID": self.id, "Name": self.hostname, "ServerVersion": VERSION["Version"], "OSType": "linux"},
        }
        return answers.get(path)

    def other(self, connection: socket.socket) -> None:
        self.http(connection, lambda path: f"{self.hostname} {path}\n")

    def http(self, connection: socket.socket, answer: Callable[[str], Any]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.startswith("/v1."):
                    path = "/" + path.split("/", 2)[2]
                if path == "/events":
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.end_headers()
                    self.wfile.flush()
                    self.rfile.read(1)  # until the other side goes
                    self.close_connection = True
                    return
                found = answer(path)
                body = found.encode() if isinstance(found, str) else json.dumps(found or {}).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Api-Version", VERSION["ApiVersion"])
                self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        Handler(connection, connection.getpeername(), None)  # type: ignore[arg-type]  # no server: one connection

    # Its life

    def run(self) -> None:
        self.log("guest started; seed: " + (", ".join(sorted(self.seed)) or "none"))
        self.print("Loading machineos…")
        time.sleep(self.told["boot"])
        ready = False
        while vm := self.vm():
            self.follow(vm["nat"])
            if not ready:
                ready = True
                self.print("machineos: docker is ready")
            time.sleep(PAUSE)
        self.print("reboot: Power down")

    def vm(self) -> dict[str, Any] | None:
        """What the state says of us, while we run."""
        try:
            vm = json.loads(Path(self.told["state"]).read_text(encoding="utf-8"))["vms"].get(self.told["uuid"])
        except (OSError, ValueError):
            return None
        mine = vm and vm["guest"] in {0, os.getpid()} and vm["state"] in {"running", "paused"}
        return vm if mine and not (vm["off_at"] and time.time() > vm["off_at"]) else None

    def follow(self, rules: dict[str, str]) -> None:
        wanted = set(rules.values())
        for rule in set(self.listeners) - wanted:
            self.listeners.pop(rule).close()
        for rule in wanted - set(self.listeners):
            _, protocol, host, port, _, inside = rule.split(",")
            if protocol != "tcp":
                continue
            serve = {"22": self.ssh, "2375": self.docker, "2376": self.docker}.get(inside, self.other)
            try:
                self.listeners[rule] = Listener(host or "127.0.0.1", int(port), serve)
            except (OSError, ValueError) as error:
                # As VirtualBox: a rule that can't be followed is only told to the log. It may be our last life's yet.
                if rule not in self.refused:
                    self.log(f"NAT: failed to redirect {rule}: {error}")
                self.refused.add(rule)

    def print(self, line: str) -> None:
        """To the serial console."""
        if self.told["console"]:
            append(Path(self.told["console"]), f"[{time.time() - self.began:12.6f}] {line}\n")

    def log(self, line: str) -> None:
        append(Path(self.told["log"]), f"00:00:{time.time() - self.began:09.6f} {line}\n")

    def end(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        shutil.rmtree(self.work, ignore_errors=True)


def append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        pass  # the machine's folder is gone


def put(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text, encoding="utf-8")
    path.with_suffix(".new").rename(path)


def main(file: str, folder: str) -> None:
    told = json.loads(Path(file).read_text(encoding="utf-8"))
    if os.fork():
        os._exit(0)
    # Nothing of Wine's is held open: it would wait for it.
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.closerange(3, 256)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    mine = Path(folder) / f"{os.getpid()}.pid"
    mine.write_text(str(os.getpid()), encoding="utf-8")
    answer = Path(told["pid"])
    guest = None
    try:
        guest = Guest(told)
        put(answer, str(os.getpid()))
        guest.run()
    except Exception as error:
        put(answer, repr(error))
        append(Path(told["log"]), f"guest failed: {error!r}\n")
    finally:
        if guest:
            guest.end()
        mine.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
