"""What a real VBoxManage 7.2 answered on Linux, as material for answers, and how a call here ends with one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# Copies of tests/data/virtualbox.
FOLDER = Path(__file__).parent / "transcripts"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    error: str

    def with_(self, *pairs: tuple[str, str]) -> Answer:
        """The same with other names in it."""
        out, error = self.out, self.error
        for old, new in pairs:
            out, error = out.replace(old, new), error.replace(old, new)
        return Answer(self.code, out, error)


class Done(Exception):
    """The call's end: what it says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def say(out: str = "", error: str = "", code: int = 0) -> NoReturn:
    raise Done(Answer(code, out, error))


def as_recorded(name: str, *pairs: tuple[str, str]) -> NoReturn:
    raise Done(answer(name).with_(*pairs))


def fail(message: str, code: str = "E_FAIL", number: str = "0x80004005") -> NoReturn:
    raise Done(failure(message, code, number))


def failure(message: str, code: str = "E_FAIL", number: str = "0x80004005") -> Answer:
    lines = [message, f"Details: code {code} ({number}), component MachineWrap, interface IMachine, callee nsISupports"]
    return Answer(1, "", "".join(f"VBoxManage.exe: error: {line}\n" for line in lines))


def answer(name: str) -> Answer:
    """The recorded call "section-slug"."""
    return _read(FOLDER / f"{name}.json")[1]


def same_words(words: list[str]) -> Answer | None:
    """A recorded call with exactly these words, where its answer depends on no virtual machine."""
    for file in sorted(FOLDER.glob("main-list-*.json")):
        argv, found = _read(file)
        if argv[1:] == words:
            return found
    return None


def _read(file: Path) -> tuple[list[str], Answer]:
    found = json.loads(file.read_text(encoding="utf-8"))
    # The program calls itself so on Windows, and Oracle's build doesn't name a distribution.
    error = found["stderr"].replace("VBoxManage: ", "VBoxManage.exe: ").replace("_Debian", "")
    return found["argv"], Answer(found["code"], found["stdout"].replace("_Debian", ""), error)
