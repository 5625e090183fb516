from __future__ import annotations

from pathlib import Path

import pytest

from machine.guest.console import BLOCK, Cleaner, follow, read, warnings


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\tb\r\nc", "a\tb\nc"),
        ("\x1b[31mred\x1b[0m \x1b[2J\x1b[?25l", "red "),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("\x1bPq#0\x1b\\x\x1b(By\x1bcz\x1b7", "xyz"),
        ("\x9b31mx\x9d0;t\x9cy", "xy"),
        ("a\x07\x08\x00\x7fb\x85c", "abc"),
        ("open \x1b]52;c;aGk=", "open ]52;c;aGk="),
        ("\x1b\x1b[31mx", "x"),
        ("ä€🙂", "ä€🙂"),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_control_is_taken_out_in_pieces_of_any_size(raw: str, clean: str, step: int) -> None:
    cleaner = Cleaner()
    pieces = [cleaner.feed(raw[at : at + step]) for at in range(0, len(raw), step)]
    assert "".join(pieces) + cleaner.feed("", last=True) == clean


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("count", [0, 1, 2, 5000, 20000, 99999])
def test_the_last_lines(tmp_path: Path, end: str, count: int) -> None:
    lines = [f"line {number}" for number in range(20000)]
    path = tmp_path / "log"
    path.write_text("\n".join(lines) + end)
    assert path.stat().st_size > 3 * BLOCK
    wanted = "\n".join(lines[len(lines) - count :] if count < len(lines) else lines) + end if count else ""
    assert b"".join(read(path, count)).decode() == wanted


def test_following_ends_with_the_machine(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "log").write_bytes(b"all\n")
    following = follow(home / "log")
    assert next(following) == b"all\n"
    (home / "log").unlink()
    assert next(following) == b""
    home.rmdir()
    assert list(following) == []


def test_an_empty_console(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    assert list(read(tmp_path / "log", 5)) == []
    (tmp_path / "log").write_bytes(b"\n\n")
    assert b"".join(read(tmp_path / "log", 1)) == b"\n"


SYSCTL = "machineos: [ 13.97] warning: sysctl vm.x=1 was refused\r\n"
FOLDERS = "machineos: [ 63.97] warning: the host's folders don't answer: what uses them waits\r\n"
ANSWER = "machineos: [ 99.00] the host's folders answer again\r\n"
HOOK = "machineos: [ 43.97] warning: boot.sh failed with exit code 3\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("machineos: [  1.00] init is up\n", []),
        (SYSCTL + HOOK, ["sysctl vm.x=1 was refused", "boot.sh failed with exit code 3"]),
        (HOOK + HOOK, ["boot.sh failed with exit code 3"]),
        (HOOK + SYSCTL + "machineos: [ 99.00] own settings are right\n", ["boot.sh failed with exit code 3"]),
        (HOOK + FOLDERS, ["boot.sh failed with exit code 3", "the host's folders don't answer: what uses them waits"]),
        (
            FOLDERS + HOOK + "machineos: [ 99.00] the host's folders answer again\r\n",
            ["boot.sh failed with exit code 3"],
        ),
        (HOOK + "machineos: [  1.00] init is up\n", []),
        ("machineos: [ 43.97] boot.sh: machineos: [ 43.97] warning: mine\n", []),
        ("machineos: [ 43.97] warning: \x1b[31mred\n", ["red"]),
    ],
)
def test_what_the_guest_warns_of(tmp_path: Path, text: str, found: list[str]) -> None:
    (tmp_path / "log").write_text(text)
    assert warnings(tmp_path / "log") == found
    assert warnings(tmp_path / "absent") == []
