"""machine completion, in the real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from machine.cli.command_line import machine
from machine.cli.completion import PowerShell
from machine.cli.verbs import COMPLETING
from tests.fixture_types import Add, Invoke, Spawn

# zsh completes only where somebody types: these take the place of what shows the words.
ZSH = """
compdef() {{ }}
_describe() {{ print -rl -- "${{(@)${{(@P)3}}%%:*}}" }}
compadd() {{ print -rl -- "${{(@P)@[-1]}}" }}
eval "$(machine completion zsh)"
words=({words}); CURRENT={current}; _machine_completion
"""
BASH = """
eval "$(machine completion bash)"
COMP_WORDS=({words}); COMP_CWORD={last}; _machine_completion machine
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = """
machine completion fish | source
complete -C "{line}"
"""


@pytest.fixture
def typed(tmp_path: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[str]]:
    """What a shell offers for the last word of a line; there are the machines web and web2."""
    add("web")
    add("web2")
    command = tmp_path / "bin" / "machine"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m machine "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))

    def offered(shell: str, line: str) -> list[str]:
        if not shutil.which(shell):
            pytest.skip(f"{shell} isn't installed")
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        program = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].format(
            words=quoted, last=len(words) - 1, current=len(words), line=line
        )
        options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        words = [shell, *options, "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
        assert done.stderr == ""
        return [offer.partition("\t")[0] for offer in done.stdout.splitlines() if offer]

    return offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_and_verbs(typed: Callable[[str, str], list[str]], shell: str) -> None:
    assert typed(shell, "machine ssh we") == ["web", "web2"]
    assert set(typed(shell, "machine st")) == {"start", "status", "stop"}


def offers(*words: str, last: str = "") -> list[str]:
    return [item.value for item in PowerShell(machine, {}, "machine", COMPLETING).get_completions(list(words), last)]


def test_what_is_offered(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETING, "1")
    add("web")
    add("a.b")
    assert offers("stop") == ["a.b", "web"]
    assert offers("stop", "web") == ["a.b"]
    assert offers("create", "--driver", last="q") == ["qemu"]
    assert offers("create", "--driver", last="v") == ["virtualbox"]
    assert {"--help-all", "--memory", "--virtualbox-memory"} <= set(offers("create", last="--"))
    assert offers("scp", "-r") == ["a.b:", "web:"]
    assert offers("env", "--shell", last="p") == ["powershell"]
    assert "--delta" in offers("scp", last="--")
    assert offers("create") == []
    assert "--storage-path" in offers(last="--s")


def test_what_powershell_is_told(spawn: Spawn, add: Add) -> None:
    add("web")
    asked = {COMPLETING: "powershell_complete", "COMP_WORDS": "machine\nstop", "COMP_WORD": "w"}
    assert spawn(env=asked).out == "web\tweb\n"
    told = spawn(env=asked | {"COMP_WORDS": "machine", "COMP_WORD": "st"}).lines
    assert "stop\tShut machines down." in told


def test_the_script_for_powershell(invoke: Invoke) -> None:
    script = invoke("completion", "powershell").out
    assert "Register-ArgumentCompleter -Native -CommandName machine" in script
    assert script.count("{") == script.count("}")
    assert '$env:_MACHINE_COMPLETE = "powershell_complete"' in script
    assert invoke("completion", "tcsh").code == 2
