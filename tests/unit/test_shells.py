from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import shellingham

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


@pytest.mark.parametrize("failure", [shellingham.ShellDetectionFailure(), TypeError("no words"), PermissionError()])
def test_what_shellingham_cant_tell_is_told_by_the_names_of_processes(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise failure

    monkeypatch.setattr(shellingham, "detect_shell", fail)
    above = [SimpleNamespace(name=lambda name=name: name) for name in ("make", "mksh", "bash")]
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(parents=lambda: above))
    assert shells.detect({}) == "mksh"
    above.clear()
    with pytest.raises(Usage, match="unknown shell: set --shell to"):
        shells.detect({})


def test_a_shell_that_we_dont_speak_isnt_taken_for_one_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shellingham, "detect_shell", lambda **_: ("nu", "/usr/bin/nu"))
    assert shells.detect({}) == "nu"


def test_unknown() -> None:
    with pytest.raises(Usage, match=r'unknown shell "nu": use bash, zsh, sh, fish, powershell, cmd, tcsh, emacs'):
        shells.find("nu")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("/bin/zsh", 'eval "$(machine env dev)"'),
        ("/usr/bin/fish", "machine env dev | source"),
        ("pwsh", "& machine env dev | Invoke-Expression"),
        ("cmd.exe", "@FOR /f \"tokens=*\" %i IN ('machine env dev') DO @%i"),
        ("/opt/bin/nu", 'eval "$(machine env dev)"'),
    ],
)
def test_what_to_type_is_in_the_users_shell(shell: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", shell)
    assert shells.evaluated("machine", "env", "dev") == line
