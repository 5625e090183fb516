"""Which accelerator QEMU gets here: KVM, HVF or WHPX when it is proved to work, else TCG (software emulation).

That /dev/kvm opens proves nothing: inside some virtual machines KVM_CREATE_VM succeeds, and yet no kernel runs. So a
program of ours (proof-x86_64.S, proof-aarch64.S) turns on paging, works a little and ends QEMU in a way of its own. A
crash, another end, or none within the limits means no. It takes 0.1 s, once per boot of the host and per QEMU binary.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from machine import resources
from machine.errors import MachineError, WaitTimeout
from machine.run import Run

# Seconds. A busy host makes the proof late, and what it shows is believed until the next boot.
DEADLINE = 20.0
# Seconds of processor, which a busy host doesn't use up: a KVM that runs no guest may spin until it is killed.
PROCESSOR_LIMIT = 2

# isa-debug-exit ends QEMU with (value << 1) | 1; proof-x86_64.S writes 0x2A.
PROVED = (0x2A << 1) | 1
# What proof-aarch64.S prints before it ends QEMU with the code 0.
WORD = "proved\n"

# proof-x86_64.S, assembled: as -o proof.o proof-x86_64.S && objcopy -O binary proof.o proof.bin
PROOF = bytes.fromhex(
    "fa2e660f0116c8000f20c06683c8010f22c066ea1a000f000800b8100000008ed88ec08ed0bc0080000031c0bf00100000b9"
    "000c0000fcf3abc7050010000003200000c7050020000003300000c7050030000083000000b8200600000f22e0b800100000"
    "0f22d8b9800000c00f320d000100000f300f20c00d000000800f22c0ea87000f001800b9a086010031c0f0480fc104250070"
    "000066480f6ec1e2ef31c00fa2b02ae6f4f40000000000000000ffff0000009acf00ffff00000092cf00ffff0000009aaf00"
    "1f00a8000f00"
)
# proof-aarch64.S, likewise; and where it is loaded.
PROOF_ARM = bytes.fromhex(
    "0006a0d2401018d52104a8d2e20301aa034080d25f8400f8630400f1c1ffff54228080d2220000f9a2e080d20200a8f22204"
    "00f902e09fd202a218d5220380d20210a0f2422018d5012018d59f3f03d51f8708d59f3f03d5df3f03d5021038d5420040b2"
    "42007eb2420074b2021018d5df3f03d54404a8d205d490522500a07286fc5fc8c604009186fc07c8a7ffff35a000679ea504"
    "007141ffff540820a1d2490100102a1540386a0000340a0100b9fdffff17000180520080b072020000d47f2003d5ffffff17"
    "70726f7665640a00"
)
_LOADED_AT = 0x40200000
_SIZE = 65536
_RESET = 0xFFF0

_BY_SYSTEM = {"linux": "kvm", "darwin": "hvf", "win32": "whpx"}


def kernel_options(accelerator: str, architecture: str) -> str:
    """What the kernel of a guest must be told, "" where it is nothing.

    QEMU before 8.0 gets the flags wrong after cmpxchg16b when it emulates (target/i386, helper_cmpxchg16b_unlocked: it
    takes them for those of an earlier instruction). An interrupt that comes just then saves garbage as the flags, and
    the guest's kernel panics: now and then, on a busy host more often. It does without the instruction, as on the first
    processors with 64 bits; programs still have it.
    """
    return "clearcpuid=cx16" if accelerator == "tcg" and architecture == "x86_64" else ""


def choose(binary: str, cache: Path, run: Run) -> str:
    """The accelerator for that QEMU: "kvm", "hvf", "whpx" or "tcg"; proved, or read from the cache of this boot."""
    candidate = _BY_SYSTEM.get(sys.platform, "tcg")
    if candidate == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    known = _known(cache)
    key = _key(binary)
    if known.get(key) not in {candidate, "tcg"}:
        known[key] = candidate if candidate != "tcg" and proved(binary, candidate, run) else "tcg"
        _remember(cache, {key: known[key]})
    return known[key]


def proved(binary: str, accelerator: str, run: Run) -> bool:
    """Whether guest code really runs under that accelerator, with the CPU model that a machine gets."""
    arm = resources.architecture() == "aarch64"
    if arm and accelerator == "hvf":
        return True  # it is a part of each macOS on ARM, and no Mac has shown yet that the proof runs there
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        program = Path(folder) / "proof.bin"
        program.write_bytes(PROOF_ARM if arm else image())
        argv = [binary, "-accel", accelerator, "-cpu", cpu(accelerator), *(on_arm(program) if arm else on_x86(program))]
        try:
            done = run(_limited(argv), timeout=DEADLINE, check=False)
        except WaitTimeout:
            return False
    return (done.code, done.stdout) == (0, WORD) if arm else done.code == PROVED


def on_x86(program: Path) -> list[str]:
    return [*_bare("q35"), "-bios", str(program), "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]


def on_arm(program: Path) -> list[str]:
    loader = f"loader,file={str(program).replace(',', ',,')},addr={_LOADED_AT:#x},cpu-num=0,force-raw=on"
    return [*_bare("virt"), "-serial", "stdio", "-device", loader]


def _bare(machine: str) -> list[str]:
    words = ["-machine", machine, "-m", "64", "-nodefaults", "-no-user-config", "-display", "none"]
    return [*words, "-no-reboot"]


def _limited(argv: list[str]) -> list[str]:
    """That command, ended by the kernel when it has used its PROCESSOR_LIMIT; Windows has no such limit.

    That the binary is missing is for run to tell, not for the shell.
    """
    if sys.platform == "win32" or not shutil.which(argv[0]):
        return argv
    return ["/bin/sh", "-c", f'ulimit -c 0; ulimit -t {PROCESSOR_LIMIT}; exec "$@"', "sh", *argv]


def image() -> bytes:
    """The firmware: the code at its start, a jump to it at the reset vector (Intel SDM 3A, 10.1.4)."""
    firmware = bytearray(b"\xf4" * _SIZE)
    firmware[: len(PROOF)] = PROOF
    firmware[_RESET : _RESET + 3] = b"\xe9" + (_SIZE - _RESET - 3).to_bytes(2, "little")
    return bytes(firmware)


def cpu(accelerator: str, architecture: str = "") -> str:
    """What -cpu takes. architecture: the machine's, this host's when none is given.

    Emulating the signatures of pointers as the processor's manual has them takes longer than all else that a kernel
    for ARM does; pauth-impdef is a cheap one in its place.
    """
    if accelerator != "tcg":
        return "host"
    return "max,pauth-impdef=on" if (architecture or resources.architecture()) == "aarch64" else "max"


def why_not(accelerator: str, architecture: str = "") -> str:
    """One line for the user when a machine is emulated, "" otherwise. architecture: the machine's."""
    if accelerator != "tcg":
        return ""
    if architecture not in {"", (here := resources.architecture())}:
        return f"{architecture} processors are emulated in software (TCG) on this {here} computer, which is slow"
    if sys.platform == "linux" and not Path("/dev/kvm").exists():
        return "no /dev/kvm here: the machine is emulated in software (TCG), which is slow"
    if sys.platform == "linux" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "no access to /dev/kvm (sudo usermod -aG kvm $USER, and log in again): emulated in software (TCG), slow"
    return "hardware acceleration was tried and doesn't work here: the machine is emulated in software (TCG), slow"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _key(binary: str) -> str:
    changed = Path(binary).stat()
    return f"{binary} {changed.st_mtime_ns} {changed.st_size}"


def _known(cache: Path) -> dict[str, str]:
    try:
        data = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(data, dict) and data.get("boot") == _boot() and isinstance(data.get("proved"), dict)
    return dict(data["proved"]) if good else {}


def _remember(cache: Path, found: dict[str, str]) -> None:
    from machine import files

    try:
        files.write(cache, json.dumps({"boot": _boot(), "proved": {**_known(cache), **found}}))
    except (OSError, MachineError):
        return  # only a cache: the next command proves it again
