"""The names of all files in the store. No other module knows them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from machine.errors import MachineError

STORE_VARIABLE = "MACHINE_STORAGE_PATH"
IMAGES_VARIABLE = "MACHINE_IMAGES_PATH"


def store() -> Path:
    """The store's folder: $MACHINE_STORAGE_PATH, else ~/.machine. Raises MachineError as `user_home` does."""
    chosen = os.environ.get(STORE_VARIABLE)
    return _absolute(chosen) if chosen else user_home() / ".machine"


def images() -> Path:
    """The cache of images: $MACHINE_IMAGES_PATH, which several stores may share, else the store's own."""
    chosen = os.environ.get(IMAGES_VARIABLE)
    return _absolute(chosen) if chosen else store() / "images"


def user_home() -> Path:
    """The user's home folder: $HOME (Windows: %USERPROFILE%), or if that is empty, the one that the system knows.

    A relative $HOME counts as empty, because it means another folder in each working directory. Raises MachineError
    when the system doesn't know the user either, as in a container that runs under a numeric user.
    """
    if os.name == "posix":
        return _posix_home()
    try:
        return Path.home()
    except RuntimeError as error:
        raise _homeless(str(error)) from error


def _posix_home() -> Path:
    if (home := Path(os.environ.get("HOME", ""))).is_absolute():
        return home
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError as error:
        raise _homeless(f"$HOME isn't an absolute path, and the system knows no user {os.getuid()}") from error


def has_account() -> bool:
    """Whether the system knows the user by name; in a container that runs under a numeric user it doesn't."""
    if os.name != "posix":
        return True
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _homeless(why: str) -> MachineError:
    return MachineError(f"you have no home folder: {why}", hint=f"export {STORE_VARIABLE}=/var/tmp/machine")


def expanded(text: str) -> Path:
    """The path with the home folder in place of ~ or ~USER. Raises MachineError for an unknown user."""
    if text == "~" or text.startswith(("~/", f"~{os.sep}")):
        return user_home() / text[2:]
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise MachineError(f"{text}: there is no such user", hint=f"write ./{text} for a file of that name") from error


def is_there(path: Path) -> bool:
    """Whether the path exists. A path that we may not look at counts as existing, so that nothing replaces it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def _absolute(text: str) -> Path:
    path = expanded(text).absolute()
    # QEMU and helpers are given the path: it must not lead through a folder that has nothing to do with the store.
    return path.resolve() if ".." in path.parts else path


def same(one: Path, other: Path) -> bool:
    """Whether two paths, however spelled, lead to the same file or folder: compares device and inode.

    Of missing files it compares the names below the nearest existing folder.
    """
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        absent = not (os.path.lexists(one) or os.path.lexists(other))
        return absent and _name(one) == _name(other) != "" and same(one.parent, other.parent)


def _name(path: Path) -> str:
    return os.path.normcase(path.name)


def below(path: Path, folder: Path) -> Path | None:
    """path relative to folder, however the two are spelled; None when path isn't below folder."""
    found = next((parent for parent in (path, *path.parents) if same(parent, folder)), None)
    return path.relative_to(found) if found is not None else None


class Image:
    """The folder of a cached image, named by the digest, and the names of the files in it."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.folder = images() / digest

    # The image itself: machineos is an ISO, a cloud image a qcow2 or raw disk.
    @property
    def file(self) -> Path:
        return self.folder / "image"

    @property
    def about(self) -> Path:
        return self.folder / "image.json"

    # Extracted from an image that a hypervisor can boot directly; absent otherwise.
    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    # Exists when the guest of this image can be cloned while it runs.
    @property
    def clones(self) -> Path:
        return self.folder / "clones"

    # Exists when this image can be the root of a system container: at which byte its root file system begins.
    @property
    def root_offset(self) -> Path:
        return self.folder / "root-offset"

    # That root file system as plain files, in a folder that only its owner may enter.
    @property
    def unpacked(self) -> Path:
        return self.folder / "unpacked" / "root"

    @property
    def command_line(self) -> Path:
        return self.folder / "cmdline"

    # How the files looked when they were read and found intact.
    @property
    def verified(self) -> Path:
        return self.folder / "verified.json"


class MachineFolder:
    """The folder of one machine, and the names of the files in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def store(self) -> Path:
        return self.path.parent.parent

    # The machine as it was asked for. create renames `creating` to it at the end.
    @property
    def config(self) -> Path:
        return self.path / "machine.json"

    @property
    def creating(self) -> Path:
        return self.path / "creating.json"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    # The files that docker expects in DOCKER_CERT_PATH.
    @property
    def ca(self) -> Path:
        return self.path / "ca.pem"

    @property
    def cert(self) -> Path:
        return self.path / "cert.pem"

    @property
    def key(self) -> Path:
        return self.path / "key.pem"

    @property
    def server_cert(self) -> Path:
        return self.path / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.path / "server-key.pem"

    # SSH: the user's key; the machine's host key, which we make so that we can pin it; the pin.
    @property
    def ssh_key(self) -> Path:
        return self.path / "id_ed25519"

    @property
    def host_key(self) -> Path:
        return self.path / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> Path:
        return self.path / "known_hosts"

    # The user's ~/.ssh/config includes this; scp, rsync and sshfs read it too.
    @property
    def ssh_config(self) -> Path:
        return self.path / "ssh_config"

    @property
    def seed(self) -> Path:
        return self.path / "seed.iso"

    @property
    def console(self) -> Path:
        return self.path / "console.log"
