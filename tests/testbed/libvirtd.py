"""A libvirtd for the tests, which nobody else's libvirtd notices: `python libvirtd.py FOLDER system|session [kvm]`.

system: meant to be started in a network namespace. Its files lie in FOLDER, mounted over libvirt's own places in a
private mount namespace; who wants to speak to it enters both namespaces.
session: an ordinary user's, with the XDG folders in FOLDER. Root has no session: this process becomes `nobody`.

This process is the reaper of all that libvirtd starts. Where process 1 reaps late, libvirtd waits for its dead QEMU
probes, and `define` took 76 s. /dev/kvm is left out of the private /dev: libvirtd asks QEMU again and again for its
capabilities where it sees one that doesn't work. With the word kvm it stays: who knows that it works says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PLACES = {"lib": "/var/lib/libvirt", "etc": "/etc/libvirt", "log": "/var/log/libvirt", "cache": "/var/cache/libvirt"}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net", "shm", "fd", "vhost-net")
QEMU_CONF = 'namespaces = []\nsecurity_driver = "none"\ncgroup_controllers = []\n'
LIBVIRTD_CONF = 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n'
DEADLINE = 60


def main(folder: Path, mode: str, kvm: str = "") -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # SIGTERM ends the loop below by an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    socket = _system(folder, hide_kvm=not kvm) if mode == "system" else _session(folder)
    try:
        _start(["virtlogd"], folder)
        _start(["libvirtd"], folder)
        deadline = time.monotonic() + DEADLINE
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        (folder / "ready").touch()
        while True:
            with contextlib.suppress(ChildProcessError):
                os.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all()


def _system(folder: Path, *, hide_kvm: bool) -> Path:
    for name, place in PLACES.items():
        (folder / name).mkdir(exist_ok=True)
        Path(place).mkdir(exist_ok=True, parents=True)
        _mount("--bind", folder / name, place)
    _mount("-t", "tmpfs", "tmpfs", "/run")
    if hide_kvm:
        _hide_kvm(folder)
    Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF, encoding="utf-8")
    Path("/etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF, encoding="utf-8")
    return Path("/run/libvirt/libvirt-sock")


def _hide_kvm(folder: Path) -> None:
    """A /dev of our own, with what QEMU needs and no kvm."""
    dev = folder / "dev"
    dev.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "tmpfs", dev)
    for name in DEVICES:
        there = Path("/dev", name)
        if there.is_symlink():
            (dev / name).symlink_to(there.readlink())
        elif there.is_dir():
            (dev / name).mkdir()
            _mount("--rbind", there, dev / name)
        elif there.exists():
            (dev / name).touch()
            _mount("--bind", there, dev / name)
    (dev / "pts").mkdir()
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=666,mode=620", "devpts", dev / "pts")
    (dev / "ptmx").symlink_to("pts/ptmx")
    _mount("--rbind", dev, "/dev")


def _session(folder: Path) -> Path:
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    for key, value in session_environment(folder).items():
        os.environ[key] = value
        Path(value).mkdir(exist_ok=True, mode=0o700)
    return folder / "runtime/libvirt/libvirt-sock"


def session_environment(folder: Path) -> dict[str, str]:
    """What a client needs to find the session's libvirtd."""
    names = {"XDG_RUNTIME_DIR": "runtime", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    return {key: str(folder / name) for key, name in {**names, "XDG_DATA_HOME": "data", "HOME": "home"}.items()}


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def _start(words: list[str], folder: Path) -> None:
    with (folder / f"{words[0]}.log").open("wb") as log:
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _end_all() -> None:
    """End every process below this one; those that lose their parent come to us."""
    deadline = time.monotonic() + 10
    while (left := _children()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)


def _children() -> list[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    return [int(pid) for pid in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
