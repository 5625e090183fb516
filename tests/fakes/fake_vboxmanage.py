"""A VBoxManage that answers from a script, as a real VirtualBox 7.2 did: tests/data/virtualbox has its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machine.run import Completed

DATA = Path(__file__).parents[1] / "data" / "virtualbox"
UUID = "11111111-2222-4333-8444-555555555555"


def transcript(name: str) -> Completed:
    data = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return Completed(data["argv"], data["code"], data["stdout"], data["stderr"])


def info(state: str = "poweroff", *lines: str, config: str = "/srv/dev/dev.vbox") -> Completed:
    """What showvminfo prints of a machine, as far as the driver reads it."""
    text = [f'UUID="{UUID}"', f'CfgFile="{config}"', "memory=2048", "cpus=2", f'VMState="{state}"', *lines]
    return Completed([], 0, "\n".join(text) + "\n", "")


def refused(message: str, code: str = "VBOX_E_INVALID_OBJECT_STATE") -> Completed:
    return Completed([], 1, "", f"VBoxManage: error: {message}\nVBoxManage: error: Details: code {code} (0x0)\n")


@dataclass
class Scripted:
    """A Run. answers: the beginning of a command's words -> what it answers, the last for ever; else nothing, well."""

    answers: dict[str, list[Completed]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        input: bytes | None = None,
        timeout: float | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Completed:
        words = [str(word) for word in argv]
        self.calls.append(words[1:] if words[0] == "VBoxManage" else words)
        line = " ".join(self.calls[-1])
        for begin in sorted(self.answers, key=len, reverse=True):
            if line.startswith(begin):
                queue = self.answers[begin]
                return queue.pop(0) if len(queue) > 1 else queue[0]
        return Completed(words, 0, "", "")

    def answer(self, begin: str, *completed: Completed) -> None:
        self.answers[begin] = list(completed)

    def said(self, begin: str) -> list[list[str]]:
        return [call for call in self.calls if " ".join(call).startswith(begin)]
