"""Shared folders of a guest that doesn't mount them itself, or whose hypervisor starts no server for it: by SSH.

So have them machines of libvirt, cloud images, and hosts that were there before. The machine's helper brings them.

The guest's SSH server opens a port on the guest's loopback for us, and hands over each connection to it; each gets a
server here. The helper mounts the folders. The guest's kernel goes on with them when the connection breaks, or the
helper ends: its calls wait until there is one again. Every process of the guest can connect to the port, so mounting
takes a token (`tokens`); what is called for afterwards takes a sealed handle, which only the guest's kernel has.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import files, ssh, store
from machine.errors import SSHFailed
from machine.folders import installation, mount_spec, slots, tokens
from machine.folders.mount_spec import Folder
from machine.guest import console
from machine.paths import MachineFolder
from machine.reasons import reason
from machine.run import Completed, detach
from machine.spec import Address

if TYPE_CHECKING:
    import paramiko

# In the machine's folder: which folders the guest has, and why not the others; and of which machine.json that was.
NOTE = "folders.json"
# Seconds.
# For the guest's SSH server to answer, and for a command there; one to mount a folder waits for calls to our server.
_BANNER, _PATIENCE, _COMMAND = 5.0, 30.0, 60.0
# For the guest's SSH server to give the port free that it opened for the connection before.
_PORT = 10.0
_TICK = 1.0
# So often is tried again what couldn't be mounted.
_RETRY = 10.0
_TABLE = "/proc/mounts"
# Bytes that are read of what a command prints.
_OUTPUT = 1 << 20
# $1: the process of the SSH server that serves this connection; $2: the machine, for a host may have two. A process of
# an earlier connection may not have noticed that we have gone (a suspend), and keeps the port.
_TAKE_OVER = """
umask 077
file="/run/machine-folders-$2"
if read -r before <"$file" && [ "$before" != "$1" ]; then
    case $(cat "/proc/$before/comm") in sshd*) kill "$before" ;; esac
fi 2>/dev/null
echo "$1" >"$file"
"""
# $1: what is mounted, $2: where, $3: options, $4: "hide" where it may hide files. The script of machineos does the same
# for QEMU's machines: it says why. Where there isn't machineos, the kernel itself ends the waiting for a server that
# has gone, after 600 s: 60, 120, 180 and 240.
_MOUNT = """
(umask 022 && mkdir -p "$2") || exit
if [ "$4" != hide ] && [ -n "$(ls -A "$2")" ]; then
    echo "the host has files of its own in $2; another place: DIR:PATH"
    exit 1
fi
options=$3
[ -x /usr/lib/machineos/folders-patience ] || options="$3,soft,timeo=600,retrans=3"
modprobe -aq nfs nfsv3 2>/dev/null
grep -qw nfs /proc/filesystems || { echo "the guest's kernel has no NFS client"; exit 1; }
mount -i -t nfs -o "$options" "$1" "$2" || exit
while read -r _ _ device _ at _; do
    [ "$(printf %b "$at")" != "$2" ] || echo 1024 >"/sys/class/bdi/$device/read_ahead_kb"
done </proc/self/mountinfo
exit 0
"""


class Sharing:
    """Keeps the folders of a running machine mounted; for a thread of its helper.

    address: says where its SSH server is, or raises MachineError. lives: whether the machine is on. may_hide: whether
    a folder may be mounted where the guest has files.
    """

    def __init__(
        self,
        folder: MachineFolder,
        address: Callable[[], Address],
        user: str,
        lives: Callable[[], bool],
        *,
        may_hide: bool = True,
    ) -> None:
        self.folder = folder
        self.address = address
        self.user = user
        self.lives = lives
        self.may_hide = may_hide
        self._said = ""
        self._servers = threading.BoundedSemaphore(slots.SLOTS)

    def run(self) -> None:
        """Return when the machine has ended."""
        pause = _TICK
        while self.lives():
            try:
                if store.read(self.folder).mounts and ssh.banner(self.address(), _BANNER):
                    self._serve()
                pause = _TICK
            except Exception as error:  # nobody else shares this machine's folders
                self._say(reason(error))
                # OpenSSH shuts an address out for a time whose logins fail again and again: cloud-init may not yet
                # have let our key in.
                pause = min(2 * pause, _RETRY)
            time.sleep(pause)

    def _serve(self) -> None:
        """Return when the connection has ended. Raises MachineError, OSError."""
        from machine.ssh import native

        with contextlib.closing(native.connect(self.folder, self.address(), self.user, _PATIENCE)) as client:
            transport = client.get_transport()
            if transport is None:
                raise SSHFailed("the SSH connection broke")
            guest = Guest(transport, _as_root(self.user))
            guest.take_over(store.read(self.folder).uuid)
            try:
                guest.listen(self._begin)
            except SSHFailed as error:
                version, mounts = store.version(store.records(self.folder)), store.read(self.folder).mounts
                failed = {mount_spec.parse(text).target: error.message for text in mounts}
                self._note(version, [], failed)
                raise
            self._keep_mounted(guest)

    def _keep_mounted(self, guest: Guest) -> None:
        version: tuple[int, int] | None = None
        failed: dict[str, str] = {}
        due = 0.0
        while self.lives() and guest.is_there():
            now = store.version(store.records(self.folder))
            # Nothing else: `machine mount rm` unmounts a folder before it changes machine.json. The note is gone where
            # a machine was resumed at once: its helper and this connection are still the same.
            is_due = failed and time.monotonic() > due
            if now != version or is_due or not (self.folder / NOTE).exists():
                failed = self._mount_all(guest, now)
                version, due = now, time.monotonic() + _RETRY
            time.sleep(_TICK)

    def _mount_all(self, guest: Guest, version: tuple[int, int] | None) -> dict[str, str]:
        """Mount what isn't. Returns which paths the guest hasn't, and why. version: of the record that is read here."""
        folders = [mount_spec.parse(text) for text in store.read(self.folder).mounts]
        there = guest.mounted()
        failed: dict[str, str] = {}
        for folder in sorted(folders, key=lambda folder: folder.target):
            if folder.target not in there and (why := self._mount(guest, folder)):
                failed[folder.target] = why
        self._note(version, [folder.target for folder in folders if folder.target not in failed], failed)
        return failed

    def _mount(self, guest: Guest, folder: Folder) -> str:
        """Why it couldn't be mounted, "" when it is."""
        if not folder.source.is_dir():
            return f"{folder.source} doesn't exist on this computer"
        token = tokens.issue(self.folder.path)
        try:
            done = guest.mount(f"/{token}{folder.target}", folder, may_hide=self.may_hide)
        finally:
            tokens.withdraw(self.folder.path)
        lines = done.stdout.strip().splitlines()
        if done.code == 0:
            return ""
        return console.clean(lines[-1]) if lines else f"mount ended with the code {done.code}"

    def _note(self, version: tuple[int, int] | None, mounted: Collection[str], failed: Mapping[str, str]) -> None:
        for target, why in failed.items():
            self._say(f"{target}: {why}")
        note = {"version": version, "mounted": sorted(mounted), "failed": failed}
        files.write(self.folder / NOTE, json.dumps(note))

    def _say(self, text: str) -> None:
        if text != self._said:
            print(text, file=sys.stderr, flush=True)
        self._said = text

    def _begin(self, channel: paramiko.Channel, origin: object, server: object) -> None:
        """Give a connection of the guest its server; paramiko's own thread calls this, and must not wait."""
        threading.Thread(target=self._carry, args=(channel,), daemon=True).start()

    def _carry(self, channel: paramiko.Channel) -> None:
        with contextlib.closing(channel):
            # The server would hang up as well; but the guest can make it start as often as it likes.
            if self._servers.acquire(blocking=False):
                try:
                    self._carry_to_server(channel)
                finally:
                    self._servers.release()

    def _carry_to_server(self, channel: paramiko.Channel) -> None:
        from machine.ssh import relay

        near, far = socket.socketpair()
        with near:
            with far, Path(os.devnull).open("wb") as nowhere:
                command = installation.server(self.folder.path, tokens.WORD)
                process = detach(command, output=nowhere, cwd=self.folder.store, connection=far)
            relay.carry(near, channel)
        process.wait()


class Guest:
    """The guest's end of an SSH connection. as_root: what leads a command to root."""

    def __init__(self, transport: paramiko.Transport, as_root: list[str]) -> None:
        self.transport = transport
        self.as_root = as_root

    def is_there(self) -> bool:
        return self.transport.is_active()

    def take_over(self, uuid: str) -> None:
        """End what is left of the machine's connection before. Raises SSHFailed."""
        done = self._run(f"{shlex.join([*self.as_root, 'sh', '-c', _TAKE_OVER, 'sh'])} $PPID {shlex.quote(uuid)}")
        if done.code:
            raise SSHFailed(f"no commands as root in the guest: {done.stdout.strip()}")

    def listen(self, begin: Callable[..., None]) -> None:
        """Have begin(channel, …) called for each connection to the port in the guest. Raises SSHFailed."""
        import paramiko

        deadline = time.monotonic() + _PORT
        while True:
            try:
                self.transport.request_port_forward(mount_spec.LOOPBACK, mount_spec.LOOPBACK_PORT, begin)
                return
            except paramiko.SSHException as error:
                if not self.is_there() or time.monotonic() > deadline:
                    raise SSHFailed(
                        "the guest's SSH server opens no port for it: its AllowTcpForwarding must be yes, and port"
                        f" {mount_spec.LOOPBACK_PORT} of its loopback free"
                    ) from error
            time.sleep(_TICK)

    def mounted(self) -> set[str]:
        """The paths at which it has folders of this computer. Raises SSHFailed."""
        return mount_spec.mounted(self._run(f"cat {_TABLE}").stdout)

    def mount(self, path: str, folder: Folder, *, may_hide: bool) -> Completed:
        """What came of it; path: as the server is asked for it. Raises SSHFailed."""
        source, options = f"{mount_spec.LOOPBACK}:{path}", mount_spec.options(folder, relayed=True)
        words = [source, folder.target, options, "hide" if may_hide else "show"]
        return self._run(shlex.join([*self.as_root, "sh", "-c", _MOUNT, "sh", *words]))

    def _run(self, command: str) -> Completed:
        """stdout: what it printed on either."""
        try:
            with contextlib.closing(self.transport.open_session(timeout=_PATIENCE)) as channel:
                channel.settimeout(_COMMAND)
                channel.set_combine_stderr(True)
                channel.exec_command(command)
                output = channel.makefile("rb").read(_OUTPUT)
                if not channel.status_event.wait(_COMMAND):
                    raise TimeoutError
                code = channel.recv_exit_status()
        except Exception as error:  # paramiko raises whatever its thread stumbled on
            raise SSHFailed(f"the SSH connection broke: {reason(error)}") from error
        return Completed([command], code, output.decode("utf-8", "replace"), "")


def _as_root(user: str) -> list[str]:
    return [] if user == "root" else ["sudo", "-n"]


def unmounted(folder: MachineFolder, targets: Collection[str], timeout: float) -> dict[str, str]:
    """Which of these paths a running guest hasn't, and why, as the helper has noted.

    timeout in seconds: wait so long for the helper to know of the present machine.json. Without one, what it noted last
    counts.
    """
    deadline = time.monotonic() + timeout
    records = store.records(folder)

    def is_current() -> bool:
        return _read(folder).get("version") == list(store.version(records) or ())

    while time.monotonic() < deadline and not is_current():
        time.sleep(0.1)
    note = _read(folder)
    failed: dict[str, str] = note.get("failed", {})
    late = "the machine's helper hasn't mounted it yet"
    return {path: failed.get(path, late) for path in targets if path not in note.get("mounted", ())}


def forget(folder: MachineFolder) -> None:
    """What was noted: the machine has been started anew."""
    with contextlib.suppress(OSError):
        (folder / NOTE).unlink(missing_ok=True)


def _read(folder: MachineFolder) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
