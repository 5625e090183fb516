"""Stores of earlier versions are read, and removed, as the versions that wrote them did: see tests/data/store-0.2."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kept_store
import pytest

from machine import resources
from tests.fixture_types import Invoke

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the hypervisors' stand-ins are shell scripts")

LS = """\
NAME     ACTIVE   DRIVER       STATE     URL                        MEMORY   CPUS   DOCKER    ERRORS
asleep   -        qemu         Saved     tcp://127.77.235.3:2375    2 GiB    2      Unknown
box      -        virtualbox   Stopped   tcp://127.77.235.5:2375    2 GiB    2      Unknown
daemon   -        none         Running   tcp://127.0.0.1:9                          Unknown   {error}
dev      -        qemu         Stopped   tcp://127.77.235.2:2375    1 GiB    4      Unknown
far      -        libvirt      Stopped   tcp://192.168.122.2:2375   2 GiB    2      Unknown
host     -        generic      Stopped   tcp://127.0.0.1:2375                       Unknown
plain    -        qemu         Stopped   tcp://127.77.235.4:2375    2 GiB    2      Unknown
"""
NO_ANSWER = "Docker doesn't answer on tcp://127.0.0.1:9: nothing listens there"
# Fields of machine.json that came after both versions.
LATER = {"mounts": [], "architecture": "", "project": "", "network": ""}
# Name -> state, address, Docker's port, port and user of SSH, and whether it speaks TLS.
MACHINES = {
    "asleep": ("Saved", "127.77.235.3", 2375, 22, "docker", True),
    "box": ("Stopped", "127.77.235.5", 2375, 22, "docker", True),
    "daemon": ("Running", "127.0.0.1", 9, 22, "docker", True),
    "dev": ("Stopped", "127.77.235.2", 2375, 22, "docker", True),
    "far": ("Stopped", "192.168.122.2", 2375, 22, "docker", True),
    "host": ("Stopped", "127.0.0.1", 2375, 9, "ann", True),
    "plain": ("Stopped", "127.77.235.4", 2375, 22, "docker", False),
}
ENV = {
    "bash": """\
export DOCKER_TLS_VERIFY="1"
export DOCKER_HOST="tcp://127.77.235.2:2375"
export DOCKER_CERT_PATH="{home}"
export DOCKER_MACHINE_NAME="dev"
""",
    "fish": """\
set -gx DOCKER_TLS_VERIFY "1";
set -gx DOCKER_HOST "tcp://127.77.235.2:2375";
set -gx DOCKER_CERT_PATH "{home}";
set -gx DOCKER_MACHINE_NAME "dev";
""",
    "powershell": """\
$Env:DOCKER_TLS_VERIFY = "1"
$Env:DOCKER_HOST = "tcp://127.77.235.2:2375"
$Env:DOCKER_CERT_PATH = "{home}"
$Env:DOCKER_MACHINE_NAME = "dev"
""",
    "cmd": """\
SET DOCKER_TLS_VERIFY=1
SET DOCKER_HOST=tcp://127.77.235.2:2375
SET DOCKER_CERT_PATH={home}
SET DOCKER_MACHINE_NAME=dev
""",
    "tcsh": """\
setenv DOCKER_TLS_VERIFY '1';
setenv DOCKER_HOST 'tcp://127.77.235.2:2375';
setenv DOCKER_CERT_PATH '{home}';
setenv DOCKER_MACHINE_NAME 'dev';
""",
    "emacs": """\
(setenv "DOCKER_TLS_VERIFY" "1")
(setenv "DOCKER_HOST" "tcp://127.77.235.2:2375")
(setenv "DOCKER_CERT_PATH" "{home}")
(setenv "DOCKER_MACHINE_NAME" "dev")
""",
}
CONFIG = """\
--tlsverify
--tlscacert="{home}/ca.pem"
--tlscert="{home}/cert.pem"
--tlskey="{home}/key.pem"
-H=tcp://127.77.235.2:2375
"""


def kept(version: str, tmp_path: Path, patch: pytest.MonkeyPatch) -> Path:
    """The folder of that version's store; without libvirt-python it lacks libvirt's machine."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    store = kept_store.copy(version, home, patch)
    if find_spec("libvirt") is None:
        shutil.rmtree(store / "machines" / "far", ignore_errors=True)
    return store


@pytest.fixture
def second(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return kept("0.2", tmp_path, monkeypatch)


@pytest.fixture
def first(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return kept("0.1", tmp_path, monkeypatch)


def names(store: Path) -> list[str]:
    return sorted(path.parent.name for path in store.glob("machines/*/machine.json"))


def called(store: Path, program: str) -> list[str]:
    """The command lines that a stand-in of kept_store was called with."""
    return (store.parent / "bin" / f"{program}.calls").read_text(encoding="utf-8").splitlines()


def test_ls(second: Path, invoke: Invoke) -> None:
    ended = invoke("ls")
    there = {"NAME", *names(second)}
    assert (ended.code, ended.err) == (0, "")
    assert ended.lines == [line for line in LS.format(error=NO_ANSWER).splitlines() if line.split()[0] in there]


def test_ls_json(second: Path, invoke: Invoke) -> None:
    rows = {row["name"]: row for row in json.loads(invoke("ls", "--json").out)}
    assert {name: row["state"] for name, row in rows.items()} == {name: MACHINES[name][0] for name in names(second)}
    assert rows["daemon"]["error"] == NO_ANSWER
    assert rows["dev"] == {
        "name": "dev",
        "active": False,
        "driver": "qemu",
        "arch": resources.architecture(),
        "state": "Stopped",
        "url": "tcp://127.77.235.2:2375",
        "memory_mib": 1024,
        "cpus": 4,
        "docker": None,
        "error": None,
        "warning": None,
    }


def test_status_url_and_ip(second: Path, invoke: Invoke) -> None:
    for name in names(second):
        state, host, port, *_ = MACHINES[name]
        ended = invoke("status", name)
        told = [line for line in ended.err.splitlines() if not line.startswith("shared folder ")]
        assert (ended.code, ended.out, told) == (0, f"{state}\n", []), name
        assert invoke("url", name).out == f"tcp://{host}:{port}\n"
        assert invoke("ip", name).out == f"{host}\n"


def test_inspect(second: Path, invoke: Invoke) -> None:
    for name in names(second):
        state, host, port, ssh_port, user, tls = MACHINES[name]
        found: dict[str, Any] = json.loads(invoke("inspect", name).out)
        driver, folder = found["Driver"], second / "machines" / name
        written = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
        assert found["Machine"] == {**LATER, **written}
        assert (found["State"], found["HostOptions"]["EngineOptions"]["TlsVerify"]) == (state, tls)
        assert [driver[key] for key in ("IPAddress", "EnginePort", "SSHPort", "SSHUser")] == [
            *(host, port, ssh_port, user)
        ]
        assert driver["SSHKeyPath"] == str(folder / "id_ed25519")


def test_inspect_tells_what_the_engine_was_given(second: Path, invoke: Invoke) -> None:
    engine = json.loads(invoke("inspect", "--format", "{{json .HostOptions.EngineOptions}}", "dev").out)
    assert engine["ArbitraryFlags"] == ["max-concurrent-downloads=2", "log-driver=local"]
    assert (engine["Labels"], engine["Env"]) == (["zone=attic"], ["TMPDIR=/var/tmp"])
    assert engine["RegistryMirror"] == ["https://mirror.example"]
    assert engine["InsecureRegistry"] == ["registry.example:5000"]
    assert invoke("inspect", "--format", "{{.HostOptions.AuthOptions.ServerCertSANs}}", "dev").out == (
        "[dev.example 10.1.2.3]\n"
    )


@pytest.mark.parametrize("shell", ENV)
def test_env(second: Path, invoke: Invoke, shell: str) -> None:
    ended = invoke("env", "--shell", shell, "dev")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(ENV[shell].format(home=second / "machines" / "dev"))


def test_env_without_tls(second: Path, invoke: Invoke) -> None:
    assert json.loads(invoke("env", "--json", "plain").out) == {
        "DOCKER_TLS_VERIFY": None,
        "DOCKER_HOST": "tcp://127.77.235.4:2375",
        "DOCKER_CERT_PATH": None,
        "DOCKER_MACHINE_NAME": "plain",
    }
    assert invoke("config", "plain").out == "-H=tcp://127.77.235.4:2375\n"


def test_config(second: Path, invoke: Invoke) -> None:
    assert invoke("config", "dev").out == CONFIG.format(home=second / "machines" / "dev")


def test_ssh_config(second: Path, invoke: Invoke) -> None:
    """It is what the version before wrote into each machine's folder, for ~/.ssh/config to include."""
    for name in names(second):
        written = (second / "machines" / name / "ssh_config").read_text(encoding="utf-8")
        assert invoke("ssh-config", name).out == written
    user = second.parent / ".ssh" / "config"
    before = user.read_text(encoding="utf-8")
    assert invoke("ssh-config", "--install").code == 0
    assert user.read_text(encoding="utf-8") == before


def test_logs(second: Path, invoke: Invoke) -> None:
    ended = invoke("logs", "dev")
    assert ended.lines[0] == "machineos: [ 14.31] kernel 6.12.118+deb13-amd64 is up"


def test_image_and_template(second: Path, invoke: Invoke) -> None:
    assert json.loads(invoke("template", "ls", "--json").out) == [
        {
            "key": "e8183585abaa15b1",
            "created": "2026-11-27T20:12:01+00:00",
            "size_mib": 0,
            "what": "2c408cf51e1a, 2 cpus, 512 MiB, tcg",
            "stale": "QEMU has changed",
            "failed": "",
        }
    ]
    users = [name for name in names(second) if name not in {"daemon", "host"}]
    assert invoke("image", "ls").lines[1].split(maxsplit=6)[-1].endswith(", ".join(users))
    assert invoke("image", "prune").code == 0
    assert (second / "images" / "machineos").exists()


def test_doctor(second: Path, invoke: Invoke) -> None:
    found = json.loads(invoke("doctor", "--json").out)
    # Tools, drivers and room are this computer's.
    of_store = [one for one in found if one["check"] not in {"tools", "drivers", "space", "client"}]
    assert {one["check"]: one["text"] for one in of_store if one["level"] != "ok"} == {"daemon": NO_ANSWER}
    told = {one["check"]: one["text"] for one in of_store}
    assert told["images"] == "the image 2c408cf51e1a is intact"
    assert told["certificates"] == "all certificates are valid"
    assert (told["asleep"], told["dev"]) == ("it is saved", "it is stopped")


def test_docker_context(second: Path, invoke: Invoke) -> None:
    """Those that were made are in line: the docker client isn't called."""
    ended = invoke("docker-context", "dev", "plain")
    assert (ended.code, ended.lines) == (0, ["docker --context machine-dev", "docker --context machine-plain"])
    assert not (second.parent / "bin" / "docker.calls").exists()


def test_a_new_machine_beside_the_old_ones(
    vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    """It has the defaults of config.toml, the store's CA, and an address that none of the others has."""
    store = kept("0.2", tmp_path, monkeypatch)
    before = {name: (store / "certs" / name).read_bytes() for name in ("ca.pem", "cert.pem")}
    ended = invoke("create", "-q", "new")
    assert (ended.code, ended.err) == (0, "")
    made = json.loads(invoke("inspect", "new").out)["Machine"]
    assert (made["driver"], made["memory_mib"], made["cpus"]) == ("fake", 1024, 2)
    assert made["engine"]["labels"] == ["site=attic"]
    assert {name: (store / "machines" / "new" / name).read_bytes() for name in before} == before
    assert made["address"]["host"] not in {host for _, host, *_ in MACHINES.values()}


def test_rm(second: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("libvirt"):
        import libvirt

        # libvirt's test driver doesn't know the other flags.
        undefine = libvirt.virDomain.undefineFlags
        monkeypatch.setattr(libvirt.virDomain, "undefineFlags", lambda domain, flags: undefine(domain, flags & 3))
    wanted = names(second)
    ended = invoke("rm", "-y", *wanted)
    assert ended.code == 0, ended.err
    assert sorted(ended.lines) == sorted(f"Successfully removed {name}" for name in wanted)
    assert [path.name for path in (second / "machines").iterdir() if path.is_dir()] == []
    assert "unregistervm 00000004-1111-4222-8333-444444444444 --delete" in called(second, "VBoxManage")
    assert "hostonlyif remove vboxnet7" in called(second, "VBoxManage")
    assert sorted(called(second, "docker")) == ["context rm -f machine-dev", "context rm -f machine-plain"]


def test_the_first_version(first: Path, invoke: Invoke) -> None:
    """Its machine.json has format 1, without the fields that came later; these have their defaults."""
    assert {row["name"]: row["state"] for row in json.loads(invoke("ls", "--json").out)} == {
        "box": "Stopped",
        "daemon": "Running",
        "dev": "Stopped",
    }
    written = json.loads((first / "machines" / "dev" / "machine.json").read_text(encoding="utf-8"))
    found = json.loads(invoke("inspect", "dev").out)["Machine"]
    assert written["format"] == 1
    assert found == {**LATER, "hosts": [], "sysctls": [], "host_network_ports": True, **written, "format": 2}
    assert ENV["bash"].format(home=first / "machines" / "dev") in invoke("env", "--shell", "bash", "dev").out
    assert invoke("config", "dev").out == CONFIG.format(home=first / "machines" / "dev")


def test_the_first_versions_machines_are_removed(first: Path, invoke: Invoke) -> None:
    ended = invoke("rm", "-y", *names(first))
    assert ended.code == 0, ended.err
    assert [path.name for path in (first / "machines").iterdir() if path.is_dir()] == []
    assert "unregistervm 00000004-1111-4222-8333-444444444444 --delete" in called(first, "VBoxManage")
