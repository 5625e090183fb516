import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from machine import acceleration
from machine.errors import ToolFailed, ToolMissing, WaitTimeout
from machine.run import Completed, run

SOURCES = Path(acceleration.__file__).parent
QEMU = shutil.which("qemu-system-x86_64")
QEMU_ARM = shutil.which("qemu-system-aarch64")
on_x86 = pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="the proof is for x86_64")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks for /dev/kvm")
with_qemu = pytest.mark.skipif(not QEMU, reason="needs qemu-system-x86_64")
with_binutils = pytest.mark.skipif(not (shutil.which("as") and shutil.which("objcopy")), reason="needs binutils")


class Fake:
    """Stands for run(): ends as told, and remembers the commands."""

    def __init__(self, end: int | Exception) -> None:
        self.end = end
        self.ran: list[list[str]] = []

    def __call__(self, argv: Sequence[str | Path], **options: object) -> Completed:
        assert options == {"timeout": acceleration.DEADLINE, "check": False}
        self.ran.append([str(word) for word in argv])
        if isinstance(self.end, Exception):
            raise self.end
        return Completed(self.ran[-1], self.end, "", "")


@on_x86
@with_binutils
def test_the_bytes_are_what_the_source_assembles_to(tmp_path: Path) -> None:
    run(["as", "--64", "-o", tmp_path / "proof.o", SOURCES / "proof-x86_64.S"])
    run(["objcopy", "-O", "binary", tmp_path / "proof.o", tmp_path / "proof.bin"])
    assert (tmp_path / "proof.bin").read_bytes() == acceleration.PROOF


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-as"), reason="needs binutils-aarch64-linux-gnu")
def test_the_bytes_for_arm_are_what_the_source_assembles_to(tmp_path: Path) -> None:
    run(["aarch64-linux-gnu-as", "-o", tmp_path / "proof.o", SOURCES / "proof-aarch64.S"])
    run(["aarch64-linux-gnu-objcopy", "-O", "binary", tmp_path / "proof.o", tmp_path / "proof.bin"])
    assert (tmp_path / "proof.bin").read_bytes() == acceleration.PROOF_ARM


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


with_qemu_for_arm = pytest.mark.skipif(not QEMU_ARM, reason="needs qemu-system-aarch64")


@with_qemu_for_arm
def test_the_proof_for_arm_passes_in_emulation(arm: None) -> None:
    assert acceleration.proved(QEMU_ARM or "", "tcg", run)


@with_qemu_for_arm
@pytest.mark.parametrize(
    ("at", "instead"),
    [
        # movk w0 of the call that switches off: another call, which the firmware refuses. It waits for ever then.
        (acceleration.PROOF_ARM.index(bytes.fromhex("0080b072")), bytes.fromhex("0080a052")),
        # The entry of the table for RAM: the code isn't there any more when paging is on.
        (acceleration.PROOF_ARM.index(bytes.fromhex("220400f9")), bytes.fromhex("1f2003d5")),
    ],
    ids=["off", "paging"],
)
def test_code_for_arm_that_goes_wrong_proves_nothing(
    arm: None, monkeypatch: pytest.MonkeyPatch, at: int, instead: bytes
) -> None:
    spoilt = bytearray(acceleration.PROOF_ARM)
    spoilt[at : at + 4] = instead
    monkeypatch.setattr(acceleration, "PROOF_ARM", bytes(spoilt))
    monkeypatch.setattr(acceleration, "DEADLINE", 3)
    assert not acceleration.proved(QEMU_ARM or "", "tcg", run)


@pytest.mark.parametrize(
    ("code", "printed", "works"),
    [(0, acceleration.WORD, True), (0, "", False), (1, acceleration.WORD, False), (-6, "", False)],
)
def test_on_arm_the_word_and_the_end_count(
    arm: None, monkeypatch: pytest.MonkeyPatch, code: int, printed: str, works: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert acceleration.proved("/qemu", "kvm", lambda argv, **_: Completed(list(argv), code, printed, "")) is works


def test_the_firmware_begins_at_the_reset_vector() -> None:
    image = acceleration.image()
    assert len(image) == 65536
    assert image.startswith(acceleration.PROOF)
    assert image[0xFFF0] == 0xE9
    # Relative to the instruction's end, and around the end of the segment to its start.
    assert (0xFFF3 + int.from_bytes(image[0xFFF1:0xFFF3], "little")) % 65536 == 0
    assert len(acceleration.PROOF) < 0xFFF0


def emulated(firmware: bytes, folder: Path) -> int:
    """The code with which the real QEMU ends that runs a firmware in emulation."""
    (folder / "proof.bin").write_bytes(firmware)
    argv: list[str | Path] = [QEMU or "", "-accel", "tcg", "-cpu", "max", "-machine", "q35", "-m", "64", "-nodefaults"]
    argv += ["-no-user-config", "-display", "none", "-no-reboot", "-bios", folder / "proof.bin"]
    argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
    return run(argv, timeout=300, check=False).code


@with_qemu
def test_the_proof_passes_in_emulation(tmp_path: Path) -> None:
    assert emulated(acceleration.image(), tmp_path) == acceleration.PROVED


@with_qemu
def test_code_that_is_cut_short_proves_nothing(tmp_path: Path) -> None:
    # Without its second half, the guest faults where long mode begins, and -no-reboot ends QEMU.
    image = bytearray(acceleration.image())
    image[0x87 : len(acceleration.PROOF)] = b"\x0f\x0b" * ((len(acceleration.PROOF) - 0x87) // 2) + b"\x0f"
    assert len(image) == 65536
    assert emulated(bytes(image), tmp_path) != acceleration.PROVED


@on_x86
@with_qemu
def test_an_accelerator_that_isnt_there_proves_nothing() -> None:
    assert not acceleration.proved(QEMU or "", "no-such-accelerator", run)


@on_x86
@pytest.mark.parametrize(
    ("end", "works"),
    [
        (acceleration.PROVED, True),
        (0, False),
        (1, False),
        (-6, False),
        (acceleration.PROVED + 2, False),
        (WaitTimeout("qemu to end", 5), False),
    ],
)
def test_only_the_proofs_own_code_counts(end: int | Exception, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(end)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert acceleration.proved("/qemu", "kvm", fake) is works
    (ran,) = fake.ran
    argv = ran[ran.index("/qemu") :]
    assert sys.platform == "win32" or "ulimit -t" in ran[2]
    firmware = argv[argv.index("-bios") + 1]
    assert not Path(firmware).exists()
    assert argv == [
        *("/qemu", "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "64", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-bios", firmware, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_one_that_spins_is_ended_by_the_processor_it_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy host makes the proof late, and so the time can't tell; some KVMs spin until they are killed."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(acceleration, "PROCESSOR_LIMIT", 1)
    spinning = tmp_path / "it's a qemu"
    spinning.write_text("#!/bin/sh\nwhile :; do :; done\n")
    spinning.chmod(0o755)
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert not acceleration.proved(str(spinning), "kvm", run)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started < acceleration.DEADLINE / 2


def test_on_arm_hvf_is_believed_without_a_proof(arm: None) -> None:
    assert acceleration.proved("/qemu", "hvf", Fake(1))


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "qemu"
    path.write_text("#!/bin/sh\n")
    return path


@pytest.fixture
def choose(tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int | Exception], str]:
    """The choice on a Linux host with /dev/kvm after this result of the proof."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(os, "access", lambda *_: True)
    return lambda end: acceleration.choose(str(binary), tmp_path / "cache.json", Fake(end))


NOT_TO_BE_RUN = ToolFailed(["qemu"], 1, "the proof was run again")


@pytest.mark.parametrize(("end", "chosen"), [(acceleration.PROVED, "kvm"), (1, "tcg")])
def test_it_is_proved_once_per_boot_and_binary(
    end: int, chosen: str, choose: Callable[[int | Exception], str], binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(end) == chosen
    assert choose(NOT_TO_BE_RUN) == chosen
    os.utime(binary, (1, 1))
    with pytest.raises(ToolFailed):
        choose(NOT_TO_BE_RUN)
    assert choose(acceleration.PROVED) == "kvm"
    monkeypatch.setattr(acceleration, "_boot", lambda: "the next boot")
    assert choose(1) == "tcg"
    assert choose(NOT_TO_BE_RUN) == "tcg"


def test_the_cache_holds_several_binaries(choose: Callable[[int | Exception], str], tmp_path: Path) -> None:
    choose(1)
    other = tmp_path / "other"
    other.touch()
    assert acceleration.choose(str(other), tmp_path / "cache.json", Fake(acceleration.PROVED)) == "kvm"
    assert choose(NOT_TO_BE_RUN) == "tcg"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"boot": 1}', '{"boot": "BOOT", "proved": []}', '{"boot": "BOOT", "proved": {"x": 1}}'],
)
def test_a_damaged_cache_is_made_anew(choose: Callable[[int | Exception], str], tmp_path: Path, text: str) -> None:
    (tmp_path / "cache.json").write_text(text.replace("BOOT", acceleration._boot()))
    assert choose(acceleration.PROVED) == "kvm"
    assert choose(NOT_TO_BE_RUN) == "kvm"


def test_a_cached_answer_of_another_kind_isnt_believed(
    choose: Callable[[int | Exception], str], tmp_path: Path, binary: Path
) -> None:
    assert choose(1) == "tcg"
    data = json.loads((tmp_path / "cache.json").read_text())
    data["proved"] = dict.fromkeys(data["proved"], "nonsense")
    (tmp_path / "cache.json").write_text(json.dumps(data))
    assert choose(acceleration.PROVED) == "kvm"


def test_without_a_place_for_the_cache_it_works_all_the_same(
    choose: Callable[[int | Exception], str], tmp_path: Path, binary: Path
) -> None:
    absent = tmp_path / "none" / "cache.json"
    assert acceleration.choose(str(binary), absent, Fake(acceleration.PROVED)) == "kvm"
    assert not absent.parent.exists()


def test_a_host_without_kvm_or_the_right_to_it_isnt_asked(
    choose: Callable[[int | Exception], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert choose(NOT_TO_BE_RUN) == "tcg"


@pytest.mark.parametrize(
    ("system", "chosen"), [("darwin", "hvf"), ("win32", "whpx"), ("freebsd14", "tcg"), ("linux", "kvm")]
)
def test_each_system_has_its_accelerator(
    choose: Callable[[int | Exception], str], monkeypatch: pytest.MonkeyPatch, system: str, chosen: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert choose(acceleration.PROVED) == chosen


@on_linux
def test_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert acceleration.why_not("kvm") == ""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert acceleration.why_not("tcg").startswith("no /dev/kvm here")
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "usermod -aG kvm" in acceleration.why_not("tcg")
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert "was tried and doesn't work" in acceleration.why_not("tcg")
    assert acceleration.why_not("tcg", "x86_64") == acceleration.why_not("tcg")
    other = acceleration.why_not("tcg", "aarch64")
    assert other == "aarch64 processors are emulated in software (TCG) on this x86_64 computer, which is slow"


def test_the_boot_is_known_without_linux_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", unreadable)
    assert acceleration._boot().isdigit()


def test_the_processor_that_a_machine_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    for here, there, words in (("x86_64", "aarch64", "max,pauth-impdef=on"), ("aarch64", "x86_64", "max")):
        monkeypatch.setattr(platform, "machine", lambda here=here: here)
        assert acceleration.cpu("tcg", there) == words
        assert acceleration.cpu("tcg") == acceleration.cpu("tcg", here)
        assert acceleration.cpu("kvm", here) == "host"


def test_a_missing_binary_is_an_error_of_its_own() -> None:
    with pytest.raises(ToolMissing):
        acceleration.proved("/no/such/qemu", "kvm", run)
