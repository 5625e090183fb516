"""Where everything lies: the one place that knows the names of files in the store."""

from __future__ import annotations

import os
from pathlib import Path

STORE_VARIABLE = "MACHINE_STORAGE_PATH"
IMAGES_VARIABLE = "MACHINE_IMAGES_PATH"


def store() -> Path:
    """The store's folder: $MACHINE_STORAGE_PATH, else ~/.machine."""
    chosen = os.environ.get(STORE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".machine"


def images() -> Path:
    """The cache of images: $MACHINE_IMAGES_PATH, which several stores may share, else the store's own."""
    chosen = os.environ.get(IMAGES_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else store() / "images"


class Image:
    """The folder of a cached image, named by the digest, and the names of the files in it."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.folder = images() / digest

    # The image itself: machineos is an ISO, a stock image a qcow2 or raw disk.
    @property
    def file(self) -> Path:
        return self.folder / "image"

    @property
    def about(self) -> Path:
        return self.folder / "image.json"

    # Taken out of an image that a hypervisor can boot directly; absent otherwise.
    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    # There when the guest of this image can be cloned while it runs.
    @property
    def clones(self) -> Path:
        return self.folder / "clones"

    @property
    def command_line(self) -> Path:
        return self.folder / "cmdline"


class Home:
    """The folder of one machine, and the names of the files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def store(self) -> Path:
        return self.folder.parent.parent

    # The machine as it was asked for: `creating` until create is through, then renamed.
    @property
    def config(self) -> Path:
        return self.folder / "machine.json"

    @property
    def creating(self) -> Path:
        return self.folder / "creating.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    # What docker's DOCKER_CERT_PATH expects.
    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def cert(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def server_cert(self) -> Path:
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.folder / "server-key.pem"

    # SSH: the user's key, the machine's host key (made by us, so that it can be pinned), and the pin.
    @property
    def ssh_key(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> Path:
        return self.folder / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    # What the user's ~/.ssh/config includes; scp, rsync and sshfs read it too.
    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def seed(self) -> Path:
        return self.folder / "seed.iso"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"
