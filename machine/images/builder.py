"""machineos built inside a machine, for hosts that lack the tools: macOS, and Linux other than Debian.

A stock cloud image of Debian is booted with SSH and without Docker (`create.temporary`). It gets the recipe and the few
modules that the recipe needs, installs the tools, and builds as Debian itself would: the bits are those of a build on
that Debian. The ISO comes back through SSH; the machine is removed however this ends, by the next command when this is
killed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import time
from io import BytesIO
from pathlib import Path

from machine import packages, resources
from machine.errors import ImageCorrupt, MachineError, ToolFailed
from machine.progress import Progress
from machine.ssh.remote import Remote

NAME = "machineos-builder"
# Of isos/catalog.toml. machineos itself is made of the packages of this Debian.
IMAGE = "debian-13"
MEMORY_MIB, CPUS, DISK_MIB = 2048, 2, 12 * 1024
# What isos/machineos imports of this program.
MODULES = ("__init__.py", "errors.py", "resources.py", "run.py", "switches.py")
FOLDER = "/var/tmp/machineos"
# Seconds. A build takes minutes; in an emulated guest on a busy host it may take hours.
BOOT, BUILD = 1800.0, 12 * 3600.0
PAUSE = 5.0
# Bytes of the ISO that a command prints, so that a broken connection costs little.
CHUNK = 8 << 20
# /tmp is in memory in Debian 13.
SCRIPT = """\
cd "$1" || exit
export TMPDIR="$1" DEBIAN_FRONTEND=noninteractive
echo 'step: installing the tools of the build'
shift
{ apt-get -qq update && apt-get -qq -y --no-install-recommends install "$@"; } </dev/null || exit
exec python3 build.py
"""
PROGRAM = """\
from pathlib import Path

from machine.isos.machineos.build import build

build(Path("out") / {file!r}, arch={arch!r}, say=lambda text: print(f"step: {{text}}", flush=True))
"""


def build(remote: Remote, architecture: str, progress: Progress, folder: Path) -> Path:
    """Build the ISO on the machine and copy it into folder, with its manifest beside it; return its path.

    Raises SSHFailed, ToolFailed with the end of the build's output, ImageCorrupt when something else arrives.
    """
    begin(remote, architecture)
    follow(remote, progress)
    progress.phase("copying the ISO out")
    return fetch(remote, architecture, folder, progress)


def begin(remote: Remote, architecture: str) -> None:
    """Copy the recipe in and start the build; it goes on when the connection breaks."""
    unpack = f"mkdir -p {FOLDER}/out && tar -x -C {FOLDER} --no-same-owner"
    remote.run(["sh", "-c", unpack], input=recipe(architecture), timeout=600)
    tools = packages.packages("mmdebstrap", "apt-get")
    if architecture != resources.architecture():
        tools.append(f"gcc-{architecture.replace('_', '-')}-linux-gnu")
    command = f'cd {FOLDER} && {{ (setsid sh build.sh "$@" >log 2>&1; echo $? >ended) </dev/null >/dev/null 2>&1 & }}'
    remote.run(["sh", "-c", command, "sh", FOLDER, *tools], timeout=120)


def recipe(architecture: str) -> bytes:
    """A tar of what the build needs: the recipe, the modules that it imports, and the two scripts that run it."""
    from machine.isos.machineos.lists import HERE

    package = Path(resources.__file__).parent
    sources = {f"machine/{name}": (package / name).read_bytes() for name in MODULES}
    sources["machine/isos/__init__.py"] = b""
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            sources[f"machine/isos/machineos/{path.relative_to(HERE).as_posix()}"] = path.read_bytes()
    sources["build.sh"] = SCRIPT.encode()
    sources["build.py"] = PROGRAM.format(file=_file(architecture), arch=architecture).encode()
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in sources.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return made.getvalue()


def follow(remote: Remote, progress: Progress) -> None:
    """Show the build's steps until it has ended. Raises ToolFailed, MachineError after half a day."""
    deadline = time.monotonic() + BUILD
    while time.monotonic() < deadline:
        ended, _, log = remote.run(["sh", "-c", f"cd {FOLDER}; cat ended 2>/dev/null; echo; cat log"]).stdout.partition(
            "\n"
        )
        steps = [line for line in log.splitlines() if line.startswith("step: ")]
        if steps:
            progress.phase(steps[-1].removeprefix("step: "))
        if ended.strip() == "0":
            return
        if ended.strip():
            raise ToolFailed(["sh", "build.sh"], int(ended), "\n".join(log.splitlines()[-20:]))
        time.sleep(PAUSE)
    raise MachineError("the build inside the machine didn't end", hint="machine iso build --in-machine")


def fetch(remote: Remote, architecture: str, folder: Path, progress: Progress) -> Path:
    """Copy ISO and manifest here. Raises ImageCorrupt when the ISO hasn't the digest of its manifest."""
    iso = folder / _file(architecture)
    source = f"{FOLDER}/out/{iso.name}"
    manifest = json.loads(remote.read(source.removesuffix(".iso") + ".json") or "{}")
    size = int(manifest.get("size", 0))
    digest = hashlib.sha256()
    folder.mkdir(parents=True, exist_ok=True)
    with iso.open("wb") as file:
        for number in range(-(-size // CHUNK)):
            script = f"dd if={source} bs={CHUNK} skip={number} count=1 2>/dev/null | base64"
            part = base64.b64decode(remote.run(["sh", "-c", script], timeout=600).stdout)
            file.write(part)
            digest.update(part)
            progress.advance(f"copying the ISO out: {100 * file.tell() // size} %")
    if not size or digest.hexdigest() != manifest["sha256"]:
        iso.unlink()
        raise ImageCorrupt("the ISO isn't what the machine has built", hint="machine iso build --in-machine")
    iso.with_suffix(".json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return iso


def _file(architecture: str) -> str:
    return f"machineos-{architecture}.iso"
