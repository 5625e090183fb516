"""machine env, config, active."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from machine import links
from machine.spec import Address
from tests.fixture_types import Add, Invoke, Spawn

# What a path can hold on a Unix file system, and a shell would love to read.
NASTY = "a  b'c\"d$HOME`id`;e\\f!g*h&i|j#k(l)~{m,n}%PATH%é\\n$(id)"


def test_lines_in_docker_machines_order(invoke: Invoke, add: Add, store: Path) -> None:
    add()
    assert invoke("env", "default").lines == [
        'export DOCKER_TLS_VERIFY="1"',
        'export DOCKER_HOST="tcp://127.77.0.2:2375"',
        f'export DOCKER_CERT_PATH="{store}/machines/default"',
        'export DOCKER_MACHINE_NAME="default"',
        "# Run this command to configure your shell: ",
        '# eval "$(machine env default)"',
    ]


def test_default_is_taken(invoke: Invoke, add: Add) -> None:
    add()
    assert invoke("env").lines[-1] == '# eval "$(machine env)"'
    assert invoke("env").lines[:-1] == invoke("env", "default").lines[:-1]


def test_without_a_machine(invoke: Invoke) -> None:
    ended = invoke("env")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        'Error: No machine name(s) specified and no "default" machine exists\nNext: machine create default\n'
    )
    ended = invoke("env", "web")
    assert (ended.code, ended.out) == (1, "")
    assert 'Docker machine "web" does not exist' in ended.err


def test_without_tls_the_tls_variables_are_unset_first(invoke: Invoke, add: Add) -> None:
    add(tls=False)
    assert invoke("env").lines[:4] == [
        "unset DOCKER_TLS_VERIFY;",
        "unset DOCKER_CERT_PATH;",
        'export DOCKER_HOST="tcp://127.77.0.2:2375"',
        'export DOCKER_MACHINE_NAME="default"',
    ]


def test_unset(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    for words in (["-u"], ["-u", "--no-proxy"]):
        assert invoke("env", *words).lines[:4] == [
            "unset DOCKER_TLS_VERIFY;",
            "unset DOCKER_HOST;",
            "unset DOCKER_CERT_PATH;",
            "unset DOCKER_MACHINE_NAME;",
        ]
        assert "NO_PROXY" not in invoke("env", *words).out


def test_unset_takes_no_name(invoke: Invoke, add: Add) -> None:
    add()
    ended = invoke("env", "-u", "default")
    assert (ended.code, ended.out) == (2, "")
    assert "no machine name" in ended.err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"NO_PROXY": "127.77.0.2"}),
        ({"no_proxy": "localhost"}, {"no_proxy": "localhost,127.77.0.2"}),
        ({"NO_PROXY": "localhost,127.77.0.2"}, {"NO_PROXY": "localhost,127.77.0.2"}),
        ({"NO_PROXY": "127.77.0.21"}, {"NO_PROXY": "127.77.0.21,127.77.0.2"}),
        ({"NO_PROXY": "a", "no_proxy": "b"}, {"no_proxy": "b,127.77.0.2", "NO_PROXY": "a,127.77.0.2"}),
    ],
)
def test_no_proxy(
    invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: dict[str, str]
) -> None:
    add()
    for key, value in before.items():
        monkeypatch.setenv(key, value)
    changes = json.loads(invoke("env", "--no-proxy", "--json").out)
    assert {key: value for key, value in changes.items() if "proxy" in key.lower()} == after


def test_unset_no_proxy_takes_out_our_address_only(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.77.0.2:2375")
    monkeypatch.setenv("NO_PROXY", "localhost,127.77.0.2, .corp")
    monkeypatch.setenv("no_proxy", "127.77.0.2")
    lines = invoke("env", "-u", "--no-proxy").lines
    assert 'export NO_PROXY="localhost,.corp"' in lines
    assert "unset no_proxy;" in lines


def test_unknown_shell(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    ended = invoke("env", "--shell", "nu")
    assert (ended.code, ended.out) == (2, "")
    assert "bash, zsh, sh, fish, powershell, cmd, tcsh, emacs" in ended.err
    monkeypatch.setenv("SHELL", "/usr/bin/nu")
    assert invoke("env").code == 2


def test_the_shell_is_detected(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    monkeypatch.setenv("SHELL", "/usr/local/bin/fish")
    assert invoke("env").lines[0] == 'set -gx DOCKER_TLS_VERIFY "1";'


def test_the_parent_process_is_the_shell_when_there_is_no_variable(add: Add) -> None:
    add()
    # The second command keeps bash from putting machine into its own place.
    script = f"{sys.executable} -m machine env; true"
    done = subprocess.run(["bash", "-c", f"unset SHELL; {script}"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("export DOCKER_TLS_VERIFY=")


def test_the_hint_repeats_the_command(invoke: Invoke, add: Add, store: Path) -> None:
    add()
    elsewhere = store.rename(store.with_name("a b"))
    ended = invoke("-s", elsewhere, "env", "--shell", "bash", "--no-proxy", "default")
    assert ended.lines[-1] == f'# eval "$(machine -s "{elsewhere}" env --shell bash --no-proxy default)"'


VARIABLES = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME")
PRINT = "printenv DOCKER_CERT_PATH; printenv DOCKER_HOST; printenv DOCKER_TLS_VERIFY; printenv DOCKER_MACHINE_NAME"
SHELLS = {
    "bash": (["bash", "-c"], 'eval "$(cat "$LINES_FILE")"'),
    "sh": (["dash", "-c"], 'eval "$(cat "$LINES_FILE")"'),
    "zsh": (["zsh", "-f", "-c"], 'eval "$(cat "$LINES_FILE")"'),
    "fish": (["fish", "--no-config", "-c"], "cat $LINES_FILE | source"),
    "fish-eval": (["fish", "--no-config", "-c"], "eval (cat $LINES_FILE)"),
    "tcsh": (["tcsh", "-f", "-c"], 'eval "`cat $LINES_FILE`"'),
    "powershell": (["pwsh", "-NoProfile", "-Command"], "Get-Content $Env:LINES_FILE | Invoke-Expression"),
    "emacs": (
        ["emacs", "-Q", "--batch", "--eval"],
        '(progn (load (getenv "LINES_FILE") nil t)'
        ' (princ (mapconcat (lambda (k) (concat (or (getenv k) "") "\\n"))'
        ' \'("DOCKER_CERT_PATH" "DOCKER_HOST" "DOCKER_TLS_VERIFY" "DOCKER_MACHINE_NAME") "")))',
    ),
}


@pytest.mark.parametrize("case", SHELLS)
@pytest.mark.parametrize("newline", [False, True], ids=["one-line", "newline"])
def test_a_real_shell_reads_the_values_back(
    invoke: Invoke, add: Add, store: Path, monkeypatch: pytest.MonkeyPatch, case: str, newline: bool
) -> None:
    (program, *options), evaluate = SHELLS[case]
    if not shutil.which(program):
        pytest.skip(f"{program} isn't installed")
    if newline and case == "tcsh":
        pytest.skip("tcsh can't hold a newline: refused, see test_shells")
    add()
    nasty = store.with_name(NASTY + ("\nx" if newline else ""))
    store.rename(nasty)
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(nasty))
    shell = case.partition("-")[0]
    assert _evaluated(invoke("env", "--shell", shell), case, program, options, evaluate) == (
        f"{nasty}/machines/default\ntcp://127.77.0.2:2375\n1\ndefault\n"
    )
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "x")
    assert _evaluated(invoke("env", "--shell", shell, "-u"), case, program, options, evaluate).strip() == ""


def _evaluated(ended: Any, case: str, program: str, options: list[str], evaluate: str) -> str:
    """What the shell has in its variables after it has run the lines."""
    assert ended.code == 0, ended.err
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".el") as file:
        file.write(ended.out)
        file.flush()
        script = evaluate if program == "emacs" else f"{evaluate}; {PRINT}"
        environment = {**os.environ, "LINES_FILE": file.name, "LC_ALL": "C.UTF-8"}
        done = subprocess.run([program, *options, script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def test_words_may_run_together_in_an_unquoted_eval(invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tls=False)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    lines = invoke("env").out
    script = f"eval $(cat <<'EOF'\n{lines}EOF\n); printenv DOCKER_TLS_VERIFY; printenv DOCKER_HOST"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "tcp://127.77.0.2:2375\n"


def test_config(invoke: Invoke, add: Add, store: Path) -> None:
    add()
    home = store / "machines/default"
    assert invoke("config").lines == [
        "--tlsverify",
        f'--tlscacert="{home}/ca.pem"',
        f'--tlscert="{home}/cert.pem"',
        f'--tlskey="{home}/key.pem"',
        "-H=tcp://127.77.0.2:2375",
    ]
    assert json.loads(invoke("config", "--json").out) == {
        "host": "tcp://127.77.0.2:2375",
        "tlsverify": True,
        "tlscacert": f"{home}/ca.pem",
        "tlscert": f"{home}/cert.pem",
        "tlskey": f"{home}/key.pem",
    }


@pytest.mark.parametrize("shell", [["bash", "-c"], ["sh", "-c"], ["zsh", "-f", "-c"]], ids=["bash", "sh", "zsh"])
def test_config_in_a_command_substitution(
    invoke: Invoke, add: Add, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: list[str]
) -> None:
    """No quotes keep a shell from splitting what a command printed: the path must have nothing that it splits."""
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} isn't installed")
    monkeypatch.setattr(links, "PLACE", tmp_path)
    (tmp_path / f"machine-{os.getuid()}").mkdir(mode=0o700)
    add()
    nasty = store.with_name(NASTY)
    store.rename(nasty)
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(nasty))
    home = nasty / "machines/default"
    files = {"tlscacert": home / "ca.pem", "tlscert": home / "cert.pem", "tlskey": home / "key.pem"}
    for file in files.values():
        file.touch()
    printed = tmp_path / "printed"
    printed.write_text(invoke("config").out, encoding="utf-8")
    for script in (f'show $(cat "{printed}")', f'eval show $(cat "{printed}")'):
        done = subprocess.run(
            [*shell, f"show() {{ printf '%s\\n' \"$@\"; }}; {script}"], capture_output=True, text=True, check=True
        )
        first, *options, last = done.stdout.splitlines()
        assert (first, last) == ("--tlsverify", "-H=tcp://127.77.0.2:2375")
        found = dict(option.removeprefix("--").split("=", 1) for option in options)
        assert all(Path(found[key].strip('"')).samefile(file) for key, file in files.items())
    assert json.loads(invoke("config", "--json").out)["tlskey"] == str(home / "key.pem")
    assert invoke("rm", "-f", "default").code == 0
    assert not (tmp_path / f"machine-{os.getuid()}").exists(), "the link goes with the machine"


@pytest.mark.skipif(not shutil.which("docker"), reason="needs the docker client")
def test_docker_takes_what_config_prints_for_a_path_with_blanks(
    spawn: Spawn, vms: Path, store: Path, tmp_path: Path
) -> None:
    spawn("create", "-q", "default")
    store.rename(there := tmp_path / "a  folder with 'blanks'")
    script = f"docker $({sys.executable} -m machine config default) version"
    environment = {**os.environ, "MACHINE_STORAGE_PATH": str(there), "DOCKER_CONFIG": str(tmp_path)}
    try:
        done = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert "Cannot connect to the Docker daemon at tcp://127.77." in done.stderr, done.stderr
    finally:
        links.forget(there / "machines/default")


def test_config_where_there_can_be_no_link(
    invoke: Invoke, add: Add, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "PLACE", tmp_path)
    (tmp_path / f"machine-{os.getuid()}").touch()
    add()
    store.rename(there := tmp_path / "a b")
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(there))
    ended = invoke("config")
    assert (ended.code, ended.lines[1]) == (0, f'--tlscacert="{there}/machines/default/ca.pem"')
    assert "isn't a folder of yours" in ended.err
    assert 'Next: eval "$(machine env default)"' in ended.err


def test_config_without_tls(invoke: Invoke, add: Add) -> None:
    add(tls=False, address=Address("::1", docker_port=4000))
    assert invoke("config").out == "-H=tcp://[::1]:4000\n"


def test_active(invoke: Invoke, add: Add, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("web", state="Running")
    add("off")
    (store / "machines/bad").mkdir()
    (store / "machines/bad/machine.json").write_text("{")
    ended = invoke("active")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("Error: No active host found\nNext: ")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.77.0.2:2375")
    assert invoke("active").out == "web\n"
    assert json.loads(invoke("active", "--json").out) == {"name": "web", "url": "tcp://127.77.0.2:2375"}
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.77.0.3:2375")
    ended = invoke("active")
    assert ended.code == 1
    assert 'No active host found: DOCKER_HOST is set to the machine "off", which is stopped' in ended.err
    assert "machine start off" in ended.err
    assert invoke("active", "web").code == 2


@pytest.mark.skipif(os.name != "posix", reason="paths are bytes there")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_path_is_printed_in_the_bytes_that_it_is(add: Add, store: Path, encoding: str) -> None:
    add()
    for name in ("ü", "\udcff"):
        elsewhere = store.with_name(name)
        elsewhere.symlink_to(store)
        environment = {**os.environ, "MACHINE_STORAGE_PATH": str(elsewhere), "PYTHONIOENCODING": encoding}
        argv = [sys.executable, "-m", "machine", "env", "--shell", "sh"]
        done = subprocess.run(argv, env=environment, capture_output=True, check=True)
        assert b'CERT_PATH="' + os.fsencode(elsewhere) + b'/machines/default"\n' in done.stdout
