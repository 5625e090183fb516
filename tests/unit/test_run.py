import io
import locale
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from machine import run
from machine.errors import ToolFailed, ToolMissing, WaitTimeout


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_command_prints_is_returned() -> None:
    done = run.run(python("import sys; print('out'); print('err', file=sys.stderr)"))
    assert (done.code, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_output_that_is_no_utf8_doesnt_hurt() -> None:
    assert run.run(python("import os; os.write(1, b'a\\xff')")).stdout == "a\ufffd"


def test_lines_end_alike_on_every_system() -> None:
    """VBoxManage.exe ends them with CR and LF: not one line of it would be understood."""
    assert run.run(python("import os; os.write(1, b'a=1\\r\\nb=2\\r\\n')")).stdout == "a=1\nb=2\n"


def test_names_in_the_code_page_of_windows_stay_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: "cp1252")
    assert run._text("C:\\Users\\Jürgen\r\n".encode("cp1252")) == "C:\\Users\\Jürgen\n"
    assert run._text("C:\\Users\\日".encode()) == "C:\\Users\\日"


def test_a_command_reads_what_it_is_given_and_else_nothing() -> None:
    echo = python("import sys; print(sys.stdin.read(), end='')")
    assert run.run(echo, input=b"text").stdout == "text"
    assert run.run(echo).stdout == ""


def test_the_environment_is_ours_plus_some_and_never_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("OURS", "1")
    code = "import os; print(os.environ['LC_ALL'], os.environ['OURS'], os.environ['MORE'])"
    assert run.run(python(code), env={"MORE": "2"}).stdout == "C.UTF-8 1 2\n"


def test_a_failure_carries_the_command_its_code_and_the_last_line() -> None:
    argv = python("import sys; sys.exit('first\\nlast')")
    with pytest.raises(ToolFailed, match=r": last$") as caught:
        run.run(argv)
    error = caught.value
    assert (error.argv, error.code, error.stderr) == (argv, 1, "first\nlast\n")
    assert error.details == f"$ {shlex.join(argv)}\nfirst\nlast"
    assert run.run(argv, check=False).code == 1


def test_a_failure_without_a_word_says_its_status_and_one_on_stdout_that() -> None:
    with pytest.raises(ToolFailed, match="exit status 3"):
        run.run(python("raise SystemExit(3)"))
    with pytest.raises(ToolFailed, match="said here"):
        run.run(python("print('said here'); raise SystemExit(3)"))


def test_a_missing_tool_is_explained() -> None:
    for start in (run.run, run.stream, lambda argv: run.detach(argv, output=io.BytesIO())):
        with pytest.raises((ToolMissing, io.UnsupportedOperation)) as caught:
            start(["no-such-tool-here"])
        if isinstance(caught.value, ToolMissing):
            assert caught.value.hint == "install no-such-tool-here and make sure that it is on PATH"


def test_a_missing_folder_isnt_a_missing_tool(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="no such folder"):
        run.run([sys.executable, "-V"], cwd=tmp_path / "none")
    assert run.run(python("import os; print(os.getcwd())"), cwd=tmp_path).stdout == f"{tmp_path}\n"


def test_a_command_that_takes_too_long_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match="to end"):
        run.run(python("import time; time.sleep(600)"), timeout=0.3)
    assert time.monotonic() - began < 120


def test_a_streamed_command_writes_where_we_do(capfd: pytest.CaptureFixture[str]) -> None:
    assert run.stream(python("print('here'); raise SystemExit(7)")).code == 7
    assert capfd.readouterr().out == "here\n"


def test_debug_shows_each_command_as_a_shell_takes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "debug", True)
    run.run([sys.executable, "-c", "print('a b')"])
    assert capsys.readouterr().err == f"$ {shlex.quote(sys.executable)} -c 'print('\"'\"'a b'\"'\"')'\n"


def test_a_detached_process_has_its_own_session_and_no_input(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()))"
    with (tmp_path / "log").open("wb") as log, run.detach(python(code), output=log, cwd=tmp_path) as process:
        process.wait(timeout=120)
    assert (tmp_path / "log").read_text() == "True ''\n"


def test_which_takes_the_first_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), "/nowhere"]))
    assert run.which("no-such", "tool", "sh") == str(tool)
    assert run.which("no-such") is None


def test_a_held_command_runs_as_long_as_the_block() -> None:
    with run.held(["sh", "-c", "echo; read -r end"]) as process:
        assert Path(f"/proc/{process}").exists()
    assert not Path(f"/proc/{process}").exists()


def test_a_held_command_that_ends_at_once_is_an_error() -> None:
    with pytest.raises(ToolFailed, match="sh failed") as caught, run.held(["sh", "-c", "echo why >&2; exit 3"]):
        pytest.fail("it isn't ready")
    assert caught.value.code == 3
    assert "why" in caught.value.details
    with pytest.raises(ToolMissing), run.held(["no-such-tool"]):
        pytest.fail("there is none")
