"""The cache of images, addressed by content: <images>/DIGEST/, and a file per name that holds the newest digest.

The digest is computed when an image is added, and again before its use when one of its files was written since. So what
boots is what was built or downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import files, locks, ownership, paths, resources
from machine.errors import CheckFailed, ImageCorrupt, MachineError, NoSuchImage
from machine.images import users
from machine.paths import Image

# The digests of the files that were extracted from an image, by their names.
SUMS = "boot.json"
# Seconds to wait for another command that copies an image of some GiB.
PATIENCE = 900.0
# Seconds: what was written since may be written again without other times, which some file systems count in seconds.
RECENT = 2.0
# The prefix of a folder that isn't an image yet, or never became one.
_NEW = ".new-"


@dataclass(frozen=True)
class ImageInfo:
    """The content of image.json. size in bytes; created in ISO 8601; recipe: a digest of a machineos's recipe."""

    name: str
    digest: str
    architecture: str
    format: str
    size: int
    created: str
    version: str = ""
    recipe: str = ""


def add(
    path: Path,
    about: ImageInfo,
    *,
    boot: dict[str, bytes] | None = None,
    named: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Image:
    """Put a file into the cache, under the digest in about.

    boot: the kernel, initrd and cmdline of an image that is booted directly. named: whether its name refers to this
    image from now on, if it is for this host's processor. say is called when this waits for another command. Raises
    ImageCorrupt when the file has another digest, WaitTimeout when another command takes too long to add one.
    """
    image = Image(about.digest)
    new = image.folder.with_name(f"{_NEW}{about.digest}")
    with _lock(say):
        _add(path, about, boot or {}, new)
        shutil.rmtree(image.folder, ignore_errors=True)
        files.move(new, image.folder)
        if named and about.architecture == resources.architecture():
            files.write(paths.images() / about.name, about.digest + "\n")
    return image


def _add(path: Path, about: ImageInfo, boot: dict[str, bytes], new: Path) -> None:
    for left_over in paths.images().glob(f"{_NEW}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    files.make_folder(new)
    try:
        shutil.copyfile(path, new / "image")
        if (found := digest(new / "image")) != about.digest:
            raise ImageCorrupt(f"{path} has the digest {found}, not {about.digest}", hint="download or build it again")
        for name, content in boot.items():
            files.write(new / name, content)
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in boot.items()}
        files.write(new / SUMS, json.dumps(sums) + "\n")
        files.write(new / "image.json", json.dumps(asdict(about), indent=2) + "\n")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


@contextlib.contextmanager
def _lock(say: Callable[[str], None]) -> Iterator[None]:
    files.make_folder(paths.images())
    with locks.held(
        paths.images() / ".lock", what="another command to put its image into the cache", timeout=PATIENCE, say=say
    ):
        yield


def current(name: str, architecture: str = "") -> Image:
    """The newest image of that name for an architecture, this host's when none is given.

    Raises NoSuchImage, and MachineError when the cache can't be read.
    """
    here = resources.architecture()
    digest = _named(name) if architecture in {"", here} else ""
    others = [about for about in cached() if about.name == name]
    if architecture not in {"", here} and (fitting := [one for one in others if one.architecture == architecture]):
        return Image(fitting[-1].digest)
    # An earlier version may have written the digest of an image for another processor.
    foreign = next((one for one in others if one.digest == digest and one.architecture != here), None)
    if digest and not foreign:
        return Image(digest)
    wanted = architecture or here
    hint = remedy(wanted) if name == "machineos" else "machine iso ls"
    what = f" for {wanted} processors" if others and all(one.architecture != wanted for one in others) else ""
    raise NoSuchImage(f'there is no image "{name}"{what} in the cache', hint=hint)


def remedy(architecture: str = "") -> str:
    """How to get machineos, for this host's processors when none are given.

    It is built with mmdebstrap, which runs on Linux only. Elsewhere a machine of QEMU can build it; QEMU isn't used on
    Windows.
    """
    other = "" if architecture in {"", resources.architecture()} else f" --arch {architecture}"
    if sys.platform == "win32":
        return f"build it on Linux or in WSL 2 (machine iso build{other}), copy it here, and give --image FILE"
    return f"machine iso build{'' if sys.platform == 'linux' else ' --in-machine'}{other}"


def _named(name: str) -> str:
    try:
        return (paths.images() / name).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    except OSError as error:
        raise ownership.explained(error) from error


def check_architecture(digest: str, architecture: str, *, can_follow: bool = False) -> None:
    """Raise CheckFailed when the image is for another processor than the machine's.

    can_follow: whether a new machine can be made with the image's.
    """
    about = find_digest(digest)
    if about and about.architecture != architecture:
        what = f"the image {about.name} {digest[:12]}"
        create = f"machine create --arch {about.architecture}"
        raise CheckFailed(
            f"{what} is for {about.architecture} processors, and the machine has {architecture}",
            hint=create if can_follow else f"machine iso build --arch {architecture}",
        )


def verify(image: Image, *, whole: bool = False) -> None:
    """Raise NoSuchImage when the image isn't in the cache, ImageCorrupt when a file of it has changed.

    whole: read files also when they have the times and sizes that they had when they were intact. To read 100 MB takes
    0.1 s.
    """
    if not paths.is_there(image.file):
        raise NoSuchImage(f"the image {image.digest[:12]} isn't in the cache", hint=remedy())
    sums = {image.file: image.digest, **_boot_sums(image)}
    # Whoever may write there could say of anything that it was read.
    looks = _looks(sums) if ownership.is_private(image.folder) and ownership.is_private(paths.images()) else None
    if looks and not whole and looks == _looked(image):
        return
    for path, wanted in sums.items():
        if not paths.is_there(path) or digest(path) != wanted:
            raise ImageCorrupt(
                f"{path} is damaged: it has changed since it was added to the cache",
                hint=f"machine iso rm {image.digest[:12]} && machine iso build",
            )

    if looks:
        with contextlib.suppress(OSError):  # somebody else's cache
            files.write(image.verified, json.dumps(looks), durable=False)


def _looks(sums: dict[Path, str]) -> dict[str, list[object]] | None:
    """What changes when a file is written; None while a change could leave the same times, or a file is missing."""
    found: dict[str, list[object]] = {}
    for path, wanted in sums.items():
        try:
            seen = path.stat()
        except OSError:
            return None
        if abs(time.time() - seen.st_ctime) < RECENT:
            return None
        found[path.name] = [wanted, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]
    return found


def _looked(image: Image) -> object:
    try:
        return json.loads(image.verified.read_bytes())
    except (OSError, ValueError):
        return None


def _boot_sums(image: Image) -> dict[Path, str]:
    """The digests of kernel, initrd and cmdline, which the image's own digest doesn't cover."""
    try:
        sums = json.loads((image.folder / SUMS).read_text(encoding="utf-8"))
        return {image.folder / name: str(wanted) for name, wanted in sums.items()}
    except FileNotFoundError:
        return {}  # from before there were any
    except (OSError, ValueError, AttributeError):
        return {image.folder / SUMS: ""}


def is_cloud_image(digest: str) -> bool:
    """Whether it is a disk that boots by itself (a publisher's cloud image), and not a machineos ISO."""
    about = find_digest(digest)
    return about is not None and about.format != "iso"


def cached() -> Iterator[ImageInfo]:
    """Every image of the cache, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in paths.images().iterdir():
            if not folder.name.startswith(".") and (about := find_digest(folder.name)):
                found.append(about)
    return iter(sorted(found, key=lambda about: about.created))


def find_digest(digest: str) -> ImageInfo | None:
    """The image of that digest; None when it isn't in the cache, or its image.json is damaged."""
    try:
        about = ImageInfo(**json.loads(Image(digest).about.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return about if isinstance(about.created, str) and isinstance(about.size, int) else None


def find(text: str, architecture: str = "") -> ImageInfo:
    """The newest image with that name, else the one whose digest begins with text.

    architecture: of which processors one with that name is, this host's when none is given.
    Raises NoSuchImage, and MachineError when several digests begin with it.
    """
    images = list(cached())
    named = any(about.name == text for about in images)
    begin = current(text, architecture).digest if named else text
    matching = [about for about in images if begin and about.digest.startswith(begin)]
    if len(matching) > 1:
        raise MachineError(f'several images begin with "{text}"', hint="machine iso ls")
    if not matching:
        raise NoSuchImage(f'there is no image "{text}" in the cache', hint="machine iso ls")
    return matching[0]


def remove(about: ImageInfo) -> None:
    shutil.rmtree(Image(about.digest).folder)
    users.forget_all(about.digest)
    name = paths.images() / about.name
    with contextlib.suppress(OSError):
        if name.read_text(encoding="utf-8").strip() == about.digest:
            name.unlink()


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
