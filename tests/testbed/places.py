"""Where the contract suite makes its machines: a driver, its hypervisor, and the way to speak to it."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from tests.testbed import ODD, Done, Options, Store, environment, execute, libvirtd, until

# In network namespaces of our own.
CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
SUPERVISOR = Path(libvirtd.__file__)
AS_NOBODY = (
    # Reading everything, because the Python that runs the tests may lie in root's home.
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"),
)


class Missing(unittest.SkipTest):
    """This host lacks what a place needs. pytest skips a test in which it is raised."""


class Place(Store):
    """A store whose machines are made with one driver. enter: what leads a command to the driver's hypervisor."""

    driver = "qemu"
    options: tuple[str, ...] = ()
    # Options with which no machine comes up (a clone of a machine that is booted already would, so --cold), and why.
    doomed: tuple[str, ...] = ("--cold", "--timeout", "1")
    why_doomed = "timed out after 1 s waiting for Docker to answer"

    def __init__(self, images: Path, folder: Path, enter: tuple[str, ...] = (), **extra: str) -> None:
        super().__init__(images, folder)
        self.enter = enter
        self.env |= {"MACHINE_DRIVER": self.driver, **extra}

    def argv(self, *words: str | Path) -> list[str]:
        return [*self.enter, *super().argv(*words)]

    def create(self, name: str, *options: str) -> Done:
        return self.machine("create", *self.options, *options, name)

    def docker(self, name: str, *words: str | Path, **options: Unpack[Options]) -> Done:
        return self.execute("docker", *shlex.split(self.machine("config", name).out), *words, **options)

    def execute(self, *words: str | Path, **options: Unpack[Options]) -> Done:
        options.setdefault("env", self.env)
        return execute([*self.enter, *words], **options)

    def archive(self, name: str, root: Path) -> bytes:
        """A tar of the root for containers of the machine name, whose busybox runs on its processors."""
        return subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout

    def give(self, path: Path) -> None:
        """Make the user own the path who makes the machines."""

    def left_outside(self) -> list[str]:
        """What is left of machines in the hypervisor, apart from what all machines share."""
        return []


class ArmPlace(Place):
    """Machines with ARM's processors, emulated on another host."""

    options = ("--arch", "aarch64", "--timeout", "900")
    # The last --timeout counts.
    doomed = ("--cold", "--timeout", "1")

    def create(self, name: str, *options: str) -> Done:
        return self.machine("create", *self.options, *options, name, timeout=1800)

    def archive(self, name: str, root: Path) -> bytes:
        """With the guest's own busybox."""
        program = base64.b64decode(self.machine("ssh", name, "base64", "/usr/bin/busybox").out)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(root, folder, symlinks=True, dirs_exist_ok=True)
            Path(folder, "bin/busybox").write_bytes(program)
            return super().archive(name, Path(folder))


class LibvirtPlace(Place):
    driver = "libvirt"
    uri = "qemu:///system"

    def __init__(self, images: Path, folder: Path, enter: tuple[str, ...], **extra: str) -> None:
        super().__init__(images, folder, enter, LIBVIRT_DEFAULT_URI=self.uri, **extra)

    def virsh(self, *words: str, code: int | None = 0) -> Done:
        return self.execute("virsh", "--quiet", *words, code=code)

    def left_outside(self) -> list[str]:
        domains = self.virsh("list", "--all", "--name").out.split()
        volumes = self.virsh("vol-list", "machine", code=None).out.split()
        reservations = self.virsh("net-dumpxml", "machine", code=None).lines
        return [
            *domains,
            *(volume for volume in volumes if volume.startswith("machine-")),
            *(line.strip() for line in reservations if "<host " in line),
        ]


class LxcPlace(Place):
    driver = "lxc"
    # A container may be up within a second, so its Docker must fail.
    doomed = ("--engine-opt", "bip=nonsense")
    why_doomed = "dockerd refuses its settings"

    def __init__(self, images: Path, folder: Path) -> None:
        super().__init__(images, folder)
        self.uuids: set[str] = set()

    def create(self, name: str, *options: str) -> Done:
        done = super().create(name, *options)
        self.note(name)
        return done

    def left_outside(self) -> list[str]:
        containers = Path("/run/machine-lxc")
        found = [path for path in containers.glob("*/machine") if path.readlink().is_relative_to(self.folder)]
        loops = execute(["losetup", "--noheadings", "--output", "BACK-FILE"], env=environment()).lines
        groups = [path for uuid in self.uuids for path in Path("/sys/fs/cgroup").glob(f"**/lxc.*.{uuid}*")]
        return [*map(str, (*found, *groups)), *(line for line in loops if str(self.folder) in line)]

    def note(self, name: str) -> str:
        self.uuids.add(json.loads((self.folder_of(name) / "machine.json").read_text())["uuid"])
        return super().note(name)


class SessionPlace(LibvirtPlace):
    uri = "qemu:///session"

    def give(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, "nobody", "nogroup")


@contextlib.contextmanager
def qemu(images: Path) -> Iterator[Place]:
    with _folder() as folder:
        yield Place(images, folder)


@contextlib.contextmanager
def qemu_arm(images: Path) -> Iterator[ArmPlace]:
    """machineos for it is built once, into the cache of images that all tests share: minutes."""
    _need("qemu-system-aarch64", "aarch64-linux-gnu-gcc", "mmdebstrap")
    if platform.machine() == "aarch64":
        raise Missing("what other tests make has these processors already")
    with _folder(ODD) as folder:
        place = ArmPlace(images, folder)
        place.machine("iso", "build", "--arch", "aarch64", "--if-missing", timeout=2400)
        yield place


def lxc_missing() -> None:
    """Raise Missing where no system container can be made."""
    _need("lxc-start", "slirp4netns", "mkfs.ext4", "losetup")
    if os.geteuid() != 0:
        raise Missing("only root can make system containers")


@contextlib.contextmanager
def lxc(images: Path) -> Iterator[LxcPlace]:
    """Containers of this host: they need no network of their own, because they have slirp4netns."""
    lxc_missing()
    with _folder(ODD) as folder:
        yield LxcPlace(images, folder)


@contextlib.contextmanager
def libvirt_system(images: Path, *, kvm: bool = False) -> Iterator[LibvirtPlace]:
    """libvirtd as root, in a network namespace, with machines that have addresses on a network there.

    kvm: whether what runs there sees /dev/kvm, which must work then.
    """
    _need("libvirtd", "virtlogd", "virsh", "ip", "dnsmasq", "nsenter")
    if os.geteuid() != 0:
        raise Missing("a network namespace can be made by root only")
    with (
        _folder() as folder,
        _folder(ODD) as store,
        network_namespace() as namespace,
        supervised(folder / "libvirt", "system", ("ip", "netns", "exec", namespace), kvm=kvm) as pid,
    ):
        yield LibvirtPlace(images, store, ("nsenter", f"--target={pid}", "--mount", "--net", "--"))


@contextlib.contextmanager
def libvirt_session(images: Path) -> Iterator[SessionPlace]:
    """An ordinary user's libvirtd; root has none, and becomes `nobody` for it."""
    _need("libvirtd", "virtlogd", "virsh", "setpriv")
    with _folder() as folder, _folder(ODD) as store, supervised(folder / "libvirt", "session"):
        environment = libvirtd.session_environment(folder / "libvirt")
        enter = AS_NOBODY if os.geteuid() == 0 else ()
        place = SessionPlace(images, store, enter, **environment)
        place.give(store)
        yield place


class RemotePlace(LibvirtPlace):
    """virsh speaks to the hypervisor on its own host; machine does it over SSH."""

    uri = ""
    server: tuple[str, ...] = ()

    def virsh(self, *words: str, code: int | None = 0) -> Done:
        return execute([*self.server, "virsh", "--quiet", *words], env=environment(), code=code)


@contextlib.contextmanager
def libvirt_remote(images: Path) -> Iterator[RemotePlace]:
    """libvirtd and an sshd in one network namespace, machine in another, a cable between them."""
    _need("libvirtd", "virtlogd", "virsh", "ip", "dnsmasq", "nsenter", "sshd", "ssh", "virt-ssh-helper")
    if os.geteuid() != 0:
        raise Missing("a network namespace can be made by root only")
    with (
        _folder() as folder,
        _folder(ODD) as store,
        network_namespace() as here,
        network_namespace() as there,
        supervised(folder / "libvirt", "system", ("ip", "netns", "exec", there)) as pid,
    ):
        _cable(here, there)
        enter = ("nsenter", f"--target={pid}", "--mount", "--net", "--")
        with _sshd(folder, enter) as ssh:
            place = RemotePlace(images, store, ("ip", "netns", "exec", here))
            place.server = enter
            place.env["LIBVIRT_DEFAULT_URI"] = f"qemu+ssh://root@{SERVER}/system?command={ssh}"
            yield place


def _cable(here: str, there: str) -> None:
    run = functools.partial(subprocess.run, check=True)
    run(["ip", "-n", here, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", there])
    for namespace, address in ((here, CLIENT), (there, SERVER)):
        run(["ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "cable"])
        run(["ip", "-n", namespace, "link", "set", "cable", "up"])


@contextlib.contextmanager
def _sshd(folder: Path, enter: tuple[str, ...]) -> Iterator[Path]:
    """An sshd where enter leads; yields a program that is ssh with the keys for it."""
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress {SERVER}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\n"
    )
    (folder / "known_hosts").write_text(f"{SERVER} {(folder / 'host.pub').read_text()}")
    ssh = folder / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec ssh -F none -i {folder}/user -o UserKnownHostsFile={folder}/known_hosts "$@"\n')
    ssh.chmod(0o755)
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "sshd"
    subprocess.run([*enter, "mkdir", "-p", "/run/sshd"], check=True)
    with (folder / "sshd.log").open("wb") as log:
        command = [*enter, sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield ssh
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def network_namespace() -> Iterator[str]:
    name = f"mvm-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextlib.contextmanager
def supervised(folder: Path, mode: str, enter: tuple[str, ...] = (), *, kvm: bool = False) -> Iterator[int]:
    """libvirtd with its files in the folder; yields the process whose namespaces it lives in."""
    folder.mkdir()
    command = [*enter, sys.executable, str(SUPERVISOR), str(folder), mode, *(["kvm"] if kvm else [])]
    with (folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: (folder / "ready").exists() or process.poll() is not None, "libvirtd", timeout=90)
        assert process.poll() is None, (folder / "supervisor.log").read_text()
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _folder(prefix: str = "mvm") -> Iterator[Path]:
    """In /tmp itself: sockets lie in it, and other users go through it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _need(*tools: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [tool for tool in tools if shutil.which(tool, path=path) is None]:
        raise Missing(f"{', '.join(missing)} isn't installed here")


PLACES = {
    "qemu": qemu,
    "qemu-arm": qemu_arm,
    "lxc": lxc,
    "libvirt-system": libvirt_system,
    "libvirt-session": libvirt_session,
}
