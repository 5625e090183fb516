"""The process that serves one connection of the guest's: python -m machine.folders FOLDER, FOLDER being the machine's.

QEMU starts it with the connection as its standard input, output and error.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from machine import store
from machine.errors import MachineError
from machine.folders import changes, installation, mount_spec, mountd, nfs3, replay, rpc, slots, tokens, xdr
from machine.folders.export import Export
from machine.folders.handles import Handles
from machine.paths import MachineFolder
from machine.reasons import reason

LOG = "folders.log"
# Bytes: what a new server finds is thrown away when it is more, and so much is one server's share.
_LOG_LIMIT = 1 << 20
_LOG_SHARE = 1 << 18
# Seconds in which a guest must send its first whole record, and each further one. The kernel's client sends a record at
# once, hangs up itself after five minutes without one, and connects again when it needs to.
_FIRST = 60.0
_NEXT = 600.0
# Seconds for which a connection stays open that can't be served.
_BREATH = 5.0
# Calls that wait for a disk at the same time.
_WORKERS = 4
# The slot of a server where they can't be counted.
_UNCOUNTED = -1
# Calls that wait for a worker; with that many the guest is read no further.
_WAITING = 16


class Server:
    """Answers the calls that come through one connection, each as soon as it can.

    is_current: whether what it serves is still what is shared. Where it isn't, it hangs up on the next call: the guest
    connects anew and asks again, and the server of that connection knows.
    """

    def __init__(
        self, connection: socket.socket, programs: list[rpc.Program], is_current: Callable[[], bool] = lambda: True
    ) -> None:
        self.connection = connection
        self.programs = programs
        self.is_current = is_current
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._deadline = time.monotonic() + _FIRST
        self._slow: queue.Queue[rpc.Call | None] = queue.Queue(_WAITING)
        self._workers: list[threading.Thread] = []

    def run(self) -> None:
        """Return when the guest, or QEMU, has hung up. Raises rpc.Broken for what is no stream of records."""
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            for message in rpc.records(self.connection):
                self._deadline = time.monotonic() + _NEXT
                if not self.is_current():
                    return
                try:
                    call = rpc.parse(message)
                except xdr.Garbage as error:
                    raise rpc.Broken(str(error)) from error
                if call.program == nfs3.PROGRAM and call.procedure in nfs3.SLOW:
                    self._hand_over(call)
                else:
                    self._answer(call)
        finally:
            self._ended.set()
            # What wasn't begun is asked again by the next connection: done then and here, old data would lie over new.
            with contextlib.suppress(queue.Empty):
                while True:
                    self._slow.get_nowait()
            with contextlib.suppress(OSError):  # nobody reads the answers any more
                self.connection.shutdown(socket.SHUT_RDWR)
            for _ in self._workers:
                self._slow.put(None)
            for worker in self._workers:
                worker.join()

    def _watch(self) -> None:
        """Hang up when nothing whole has come for too long, or the guest takes no answers: others need the slot."""
        while not self._ended.wait(max(0.0, self._deadline - time.monotonic())):
            if time.monotonic() >= self._deadline:
                log("the guest has sent nothing for long")
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return

    def _hand_over(self, call: rpc.Call) -> None:
        self._slow.put(call)
        if len(self._workers) < _WORKERS:
            worker = threading.Thread(target=self._work, daemon=True)
            self._workers.append(worker)
            worker.start()

    def _work(self) -> None:
        while call := self._slow.get():
            with contextlib.suppress(OSError):  # the connection has ended: the reading thread sees it, too
                self._answer(call)

    def _answer(self, call: rpc.Call) -> None:
        try:
            message = rpc.answer(call, self.programs)
        except Exception:  # a fault of ours; the other files of the guest go on being served
            log(traceback.format_exc())
            message = rpc.accepted(call.xid, rpc.SYSTEM_ERR)
        with self._sending:
            rpc.send(self.connection, message)


@contextlib.contextmanager
def programs(
    folders: list[mount_spec.Folder],
    machine_folder: Path,
    hidden: list[Path],
    ring: int | None = None,
    *,
    with_tokens: bool = False,
) -> Iterator[list[rpc.Program]]:
    """What serves these folders; machine_folder is where handles are kept. A folder that isn't there is left out.

    ring: where it says what the guest changed, None for nowhere. with_tokens: whether a folder can be mounted only as
    /TOKEN/PATH.
    """

    def admit(path: bytes) -> bytes | None:
        return tokens.spend(machine_folder, path) if with_tokens else path

    handles = Handles(machine_folder / mount_spec.DATABASE)
    own = installation.folders()
    written = _changes(machine_folder, ring)
    exports: list[Export] = []
    try:
        for folder in folders:
            try:
                exports.append(
                    Export(
                        folder.source,
                        os.fsencode(folder.target),
                        handles,
                        read_only=folder.read_only,
                        hidden=hidden if folder.read_only else [*hidden, *own],
                    )
                )
            except OSError as error:
                log(f"{folder.source}: {reason(error)}")
        by_mark = {export.mark: export for export in exports}
        served = nfs3.Nfs3(by_mark, handles, nfs3.boot_verifier(), written)
        replayed = replay.Replay(by_mark, handles, served.verifier)
        by_path = {export.target: export for export in exports}
        yield [
            replay.beside(served.program(), replayed),
            mountd.program(by_path, lambda export: served.handle(export, export.top), admit),
        ]
    finally:
        with handles.lock:
            for export in exports:
                export.close()
            handles.close()
            if written:
                written.close()


class Log:
    """The lines of one server in the machine's folder: no more than its share, for a guest can cause any number."""

    def __init__(self) -> None:
        self._left = _LOG_SHARE
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"
        with self._lock:
            if self._left < 0:
                return
            self._left -= len(line.encode(errors="replace")) + 1
            if self._left < 0:
                line = "more of this server isn't told"
        with contextlib.suppress(OSError):  # the disk may be full
            print(line, file=sys.stderr, flush=True)


log = Log()


def main(path: str, *words: str) -> None:
    folder = MachineFolder(Path(path))
    connection = _connection(folder.path)
    if (slot := _slot(folder.path)) is None:
        log(f"the guest has {slots.SLOTS} connections; a further one was closed")
        return
    os.umask(0)  # the guest has taken its own from the modes already
    _allow_files()
    with contextlib.closing(connection):
        try:
            _serve(folder, connection, slot, with_tokens=tokens.WORD in words)
        except Exception as error:
            log(f"nothing is shared: {reason(error)}" if _is_known(error) else traceback.format_exc())
            # The guest's kernel connects again at once, and would have this computer start server after server.
            time.sleep(_BREATH)


def _is_known(error: Exception) -> bool:
    return isinstance(error, (MachineError, OSError, sqlite3.Error))


def _serve(folder: MachineFolder, connection: socket.socket, slot: int, *, with_tokens: bool) -> None:
    """Raises MachineError, OSError and sqlite3.Error for what keeps it from serving."""
    records = store.records(folder)
    version = store.version(records)  # before it is read: a change in between is seen at the first call
    machine = store.read(folder)
    if not machine.mounts:
        raise MachineError("the machine has no folders")
    folders = [mount_spec.parse(text) for text in machine.mounts]
    hidden = mount_spec.hidden(folder.store)
    with programs(folders, folder.path, hidden, slot, with_tokens=with_tokens) as served:
        try:
            Server(connection, served, lambda: store.version(records) in {version, None}).run()
        except (rpc.Broken, OSError) as error:
            log(f"the connection ended: {reason(error)}")


def _slot(machine_folder: Path) -> int | None:
    try:
        return slots.take(machine_folder)
    except OSError as error:  # a full disk, or one without locks, is no reason to serve nobody
        log(f"connections aren't counted: {reason(error)}")
        return _UNCOUNTED


def _changes(machine_folder: Path, ring: int | None) -> changes.Writer | None:
    if ring in {None, _UNCOUNTED}:
        return None
    try:
        return changes.Writer(machine_folder, ring)
    except OSError as error:
        log(f"the guest will be told of its own changes: {reason(error)}")
        return None


def _connection(machine_folder: Path) -> socket.socket:
    """Standard input; what is printed from here on goes to a log, and not to the guest."""
    connection = socket.socket(fileno=os.dup(0))
    path = machine_folder / LOG
    with contextlib.suppress(OSError):
        if path.stat().st_size > _LOG_LIMIT:
            path.unlink()
    try:
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        output = os.open(os.devnull, os.O_WRONLY)
    for standard in (0, 1, 2):
        os.dup2(output, standard)
    os.close(output)
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _allow_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
