from __future__ import annotations

import pytest

from machine import shells
from machine.errors import Usage

# Those without a program to try them with here, and what tests/cli/test_env.py doesn't reach.


def test_powershell() -> None:
    shell = shells.find("pwsh")
    assert shell.set("K", 'C:\\a b\\"$x`“”\nc') == '$Env:K = "C:\\a b\\`"`$x```“`”`nc"'
    assert shell.unset("K") == "Remove-Item Env:\\K -ErrorAction Ignore"
    assert shell.hint(["machine", "env"])[1] == "# & machine env | Invoke-Expression"


def test_cmd() -> None:
    shell = shells.find("cmd")
    assert shell.set("K", r"C:\Users\me\.machine") == r"SET K=C:\Users\me\.machine"
    assert shell.set("K", r"C:\R&D (new)") == r'SET "K=C:\R&D (new)"'
    assert shell.unset("K") == "SET K="
    assert shell.hint(["machine", "env", "a"])[1] == "REM \t@FOR /f \"tokens=*\" %i IN ('machine env a') DO @%i"
    with pytest.raises(Usage, match="cmd can't hold"):
        shell.set("K", "a\nb")


def test_tcsh_refuses_a_newline_and_its_comments_are_inert() -> None:
    shell = shells.find("tcsh")
    with pytest.raises(Usage, match="tcsh can't hold"):
        shell.set("K", "a\nb")
    assert shell.hint(["machine", "env"])[1] == ": 'eval \"`machine env`\"';"


def test_emacs_hint_is_quoted_for_both() -> None:
    assert shells.find("emacs").hint(["machine", "-s", "a b", "env"])[1] == (
        ';; (with-temp-buffer (shell-command "machine -s \\"a b\\" env" (current-buffer)) (eval-buffer))'
    )


def test_a_command_line_of_two_lines_has_no_hint() -> None:
    assert shells.find("sh").hint(["machine", "-s", "a\nrm -rf", "env"]) == []


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("/bin/bash", "bash"),
        ("/usr/bin/dash", "dash"),
        (r"C:\Program Files\Git\usr\bin\bash.exe", "bash"),
        ("zsh", "zsh"),
    ],
)
def test_detect(variable: str, name: str) -> None:
    assert shells.detect({"SHELL": variable}) == name
    shells.find(name)


def test_unknown() -> None:
    with pytest.raises(Usage, match=r'"nu" isn\'t known; known are bash, zsh, sh, fish, powershell, cmd, tcsh, emacs'):
        shells.find("nu")
