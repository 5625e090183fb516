"""What docker-machine 0.16 prints, line by line, beside what is printed here.

The lines were recorded from its program and its source, with `machine` for `docker-machine` and this store's paths.
docs/docker-machine.md says "same" only of what is compared here or in the test that it names; what differs is in
DIFFERS, and on the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from machine.errors import DockerFailed
from tests.fixture_types import Add, Invoke, Outcome

VALUES = (
    ("DOCKER_TLS_VERIFY", "1"),
    ("DOCKER_HOST", "tcp://127.77.0.2:2375"),
    ("DOCKER_CERT_PATH", "{store}/machines/default"),
    ("DOCKER_MACHINE_NAME", "default"),
)
HINT = "{comment} Run this command to configure your shell: "
# shell: how docker-machine sets a variable, takes it back, begins a comment.
SHELLS = {
    "bash": ('export {key}="{value}"', "unset {key}", "#"),
    "zsh": ('export {key}="{value}"', "unset {key}", "#"),
    "sh": ('export {key}="{value}"', "unset {key}", "#"),
    "fish": ('set -gx {key} "{value}";', "set -e {key};", "#"),
    "powershell": ('$Env:{key} = "{value}"', "Remove-Item Env:\\\\{key}", "#"),
    "cmd": ("SET {key}={value}", "SET {key}=", "REM"),
    "tcsh": ('setenv {key} "{value}";', "unsetenv {key};", ":"),
    "emacs": ('(setenv "{key}" "{value}")', '(setenv "{key}" nil)', ";;"),
}
# Where a line is another one here: (shell, what) -> how it becomes docker-machine's, and why it isn't.
DIFFERS: dict[tuple[str, str], Callable[[str], str]] = {
    # In an unquoted `eval $(…)` the lines run together; the semicolon keeps the next one apart.
    **{(shell, "unset"): lambda line: line.removesuffix(";") for shell in ("bash", "zsh", "sh")},
    # One backslash is the drive's; and a variable that isn't set is no error.
    ("powershell", "unset"): lambda line: line.removesuffix(" -ErrorAction Ignore").replace(":\\", ":\\\\"),
    # In double quotes tcsh expands ! and $.
    ("tcsh", "set"): lambda line: line.replace("'", '"'),
    # `:` is a command there: its words are quoted.
    ("tcsh", "hint"): lambda line: line.replace("'", "").removesuffix(";"),
}


def theirs(shell: str, what: str, line: str) -> str:
    differs = DIFFERS.get((shell, what))
    return differs(line) if differs else line


@pytest.mark.parametrize("shell", SHELLS)
def test_env(invoke: Invoke, add: Add, store: Path, shell: str) -> None:
    add(state="Running")
    set_, _, comment = SHELLS[shell]
    lines = invoke("env", "--shell", shell, "default").out.split("\n")
    assert lines.pop() == ""
    assert [theirs(shell, "set", line) for line in lines[:4]] == [
        set_.format(key=key, value=value.format(store=store)) for key, value in VALUES
    ]
    assert theirs(shell, "hint", lines[4]) == HINT.format(comment=comment)
    assert lines[5].startswith(f"{comment} ")
    assert "machine env --shell" in lines[5]
    assert len(lines) == 6


@pytest.mark.parametrize("shell", SHELLS)
def test_env_unset(invoke: Invoke, shell: str) -> None:
    _, unset, comment = SHELLS[shell]
    lines = invoke("env", "--shell", shell, "-u").out.split("\n")
    assert [theirs(shell, "unset", line) for line in lines[:4]] == [unset.format(key=key) for key, _ in VALUES]
    assert theirs(shell, "hint", lines[4]) == HINT.format(comment=comment)


def test_config(invoke: Invoke, add: Add, store: Path) -> None:
    add(state="Running")
    folder = f"{store}/machines/default"
    assert invoke("config", "default").out == (
        f'--tlsverify\n--tlscacert="{folder}/ca.pem"\n--tlscert="{folder}/cert.pem"\n--tlskey="{folder}/key.pem"\n'
        "-H=tcp://127.77.0.2:2375\n"
    )


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["ip", "default"], "127.77.0.2\n"),
        (["url", "default"], "tcp://127.77.0.2:2375\n"),
        (["status", "default"], "Running\n"),
        (["active"], "default\n"),
        (["ls", "-q"], "default\nweb\n"),
        (["ls", "--filter", "STATE=running", "--format", "{{.Name}} {{.DriverName}}"], "default fake\n"),
        (["ls", "--filter", "name=^d", "-f", "table{{.Name}}\\t{{.Swarm}}"], "NAME      SWARM\ndefault\n"),
        (["ls", "-f", "{{.Name}}: {{.Active}} {{.ActiveHost}} {{.ActiveSwarm}}", "--filter", "name=web"],
         "web: - false false\n"),
        (["inspect", "-f", "{{.Driver.MachineName}} {{.HostOptions.SwarmOptions.IsSwarm}}"], "default false\n"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)  # fmt: skip
def test_what_is_printed(
    invoke: Invoke, add: Add, monkeypatch: pytest.MonkeyPatch, words: list[str], printed: str
) -> None:
    from machine.docker import api

    def silent(*_: object, **__: object) -> str:
        raise DockerFailed("nothing answers")

    monkeypatch.setattr(api.Client, "version", silent)
    add(state="Running")
    add("web")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.77.0.2:2375")
    assert invoke(*words) == Outcome(0, printed, "")


def test_the_headings_of_ls(invoke: Invoke, add: Add) -> None:
    """Those of the default are in docker-machine's order; MEMORY and CPUS have taken SWARM's place."""
    theirs = ["NAME", "ACTIVE", "DRIVER", "STATE", "URL", "SWARM", "DOCKER", "ERRORS"]
    assert invoke("ls").lines[0].split() == [
        part for name in theirs for part in (["MEMORY", "CPUS"] if name == "SWARM" else [name])
    ]
    form = "table {{ .Name }}\\t{{ .Active }}\\t{{ .DriverName}}\\t{{ .State }}\\t{{ .URL }}\\t{{ .Swarm }}\\t"
    assert invoke("ls", "-f", form + "{{ .DockerVersion }}\\t{{ .Error}}").lines[0].split() == theirs


# docker-machine's config.json of a machine of VirtualBox, but for what is VirtualBox's own.
KEYS = {
    "": "ConfigVersion Driver DriverName HostOptions Name",
    "Driver": "IPAddress MachineName SSHUser SSHPort SSHKeyPath StorePath SwarmMaster SwarmHost SwarmDiscovery CPU "
    "Memory DiskSize",
    "HostOptions": "Driver Memory Disk EngineOptions SwarmOptions AuthOptions",
    "HostOptions.EngineOptions": "ArbitraryFlags Dns GraphDir Env Ipv6 InsecureRegistry Labels LogLevel StorageDriver "
    "SelinuxEnabled TlsVerify RegistryMirror InstallURL",
    "HostOptions.SwarmOptions": "IsSwarm Address Discovery Agent Master Host Image Strategy Heartbeat Overcommit "
    "ArbitraryFlags ArbitraryJoinFlags Env IsExperimental",
    "HostOptions.AuthOptions": "CertDir CaCertPath CaPrivateKeyPath CaCertRemotePath ServerCertPath ServerKeyPath "
    "ClientKeyPath ServerCertRemotePath ServerKeyRemotePath ClientCertPath ServerCertSANs StorePath",
}


@pytest.mark.parametrize("path", KEYS)
def test_the_keys_of_inspect(invoke: Invoke, add: Add, path: str) -> None:
    add()
    found = json.loads(invoke("inspect", "default").out)
    for part in filter(None, path.split(".")):
        found = found[part]
    assert set(KEYS[path].split()) <= found.keys()


@pytest.mark.parametrize("verb", ["start", "stop", "kill"])
def test_the_last_line_of_what_is_done(invoke: Invoke, vms: Path, verb: str) -> None:
    """docker-machine's line before it ('Stopping "dev"...') is a phase here, on stderr."""
    assert invoke("create", "-q", "dev").code == 0
    if verb == "start":
        invoke("stop", "dev")
    past = {"start": "started", "stop": "stopped", "kill": "killed"}[verb]
    assert invoke(verb, "dev").out == f'Machine "dev" was {past}.\n'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ip"], 'No machine name(s) specified and no "default" machine exists'),
        (["rm"], "Expected to get one or more machine names as arguments"),
        (["active", "x"], "Too many arguments given"),
        (["env", "-u", "x"], "Expected no machine name when the -u flag is present"),
        (["status", "x"], 'Docker machine "x" does not exist'),
        (["active"], "No active host found"),
        (["ls", "--filter", "foo=x"], "Unsupported filter key 'foo'"),
        (["ls", "--filter", "foo"], "Unsupported filter syntax"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_errors(invoke: Invoke, store: Path, words: list[str], message: str) -> None:
    """The sentence is docker-machine's; here `Error: ` always stands before it, and wrong usage is exit code 2."""
    shown = invoke(*words)
    assert (shown.code != 0, shown.out) == (True, "")
    assert shown.err.startswith(f"Error: {message}")


@pytest.mark.parametrize("words", [["help"], ["snapshot"], ["image"], ["iso"], ["template"]], ids=" ".join)
def test_a_verb_that_is_missing_is_help_and_no_error(invoke: Invoke, store: Path, words: list[str]) -> None:
    shown = invoke(*words)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("Usage: machine")
