"""The life of a VirtualBox machine on Windows, from `create` to `rm`: the tests go on where the one before ended."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_iso import iso

from tests.testbed import until
from tests.windows.conftest import Store
from tests.windows.rig import windows_path

# Seconds: the first test makes the rig.
pytestmark = pytest.mark.timeout(1800)
DOCKER = """
import docker
client = docker.from_env()
print(client.api.base_url, client.ping(), client.version()["Version"])
client.close()
"""

CONTEXT = """
import docker
context = docker.ContextAPI.get_current_context()
client = docker.DockerClient(base_url=context.Host, tls=context.TLSConfig)
print(context.Host, client.ping())
client.close()
"""


@pytest.fixture(scope="module")
def dev(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the machine dev."""
    image = iso(tmp_path_factory.mktemp("image") / "machineos.iso")
    options = ("--driver", "virtualbox", "--image", windows_path(image), "--memory", "1G", "--virtualbox-no-share")
    store.machine("create", *options, "--context", "dev")
    yield store
    if (store.folder / "store" / "machines" / "dev").exists():
        store.machine("rm", "-y", "-f", "dev", code=None)


def variables(store: Store) -> dict[str, str]:
    found: dict[str, str] = json.loads(store.machine("env", "--json", "dev").out)
    return found


def certificates(store: Store) -> str:
    return windows_path(store.folder / "store" / "machines" / "dev")


def test_it_runs(dev: Store) -> None:
    assert dev.machine("status", "dev").lines == ["Running"]
    [machine] = json.loads(dev.machine("ls", "--timeout", "60", "--json").out)
    assert (machine["name"], machine["driver"], machine["state"]) == ("dev", "virtualbox", "Running")
    assert machine["url"].startswith("tcp://127.")


def test_docker_over_tls(dev: Store) -> None:
    told = variables(dev)
    assert told["DOCKER_CERT_PATH"] == certificates(dev)
    assert told["DOCKER_TLS_VERIFY"] == "1"
    answered = dev.python(DOCKER, **told)
    assert answered.out.split()[1:] == ["True", "26.1.5"]
    assert answered.out.startswith("https://127.")


def test_its_docker_context(dev: Store) -> None:
    """docker-py finds it where docker.exe does, with its certificates."""
    dev.machine("docker-context", "--use", "dev")
    answered = dev.python(CONTEXT)
    assert answered.lines == [f"{variables(dev)['DOCKER_HOST']} True"]


def test_env_for_cmd(dev: Store) -> None:
    """In a console of code page 65001: none of the others has all characters of the path."""
    lines = [
        "@echo off",
        "chcp 65001 >nul",
        "C:\\Python\\python.exe -P -m machine env --shell cmd dev >env.bat",
        "call env.bat",
        "C:\\Python\\python.exe -c \"import os; print(ascii(os.environ['DOCKER_CERT_PATH']))\"",
    ]
    (dev.folder / "run.bat").write_text("\r\n".join([*lines, ""]), encoding="ascii")
    said = dev.rig.run("cmd", "/c", "run.bat", env=dev.env, cwd=dev.folder, console=True)
    # Wine's cmd reads batch files by code page 437 all the same.
    read = ast.literal_eval(said.out.strip()).encode("cp437").decode("utf-8")
    assert read == certificates(dev)


def test_what_cmd_cant_be_told_is_said(dev: Store) -> None:
    said = dev.machine("env", "--shell", "cmd", "dev", code=1, console=True)
    assert "the console's code page (cp437) doesn't have" in said.err
    assert "chcp 65001" in said.err


def test_env_for_powershell(dev: Store) -> None:
    """In a console of code page 437, as Windows has it in America."""
    said = dev.machine("env", "--shell", "powershell", "dev", console=True, encoding="cp437")
    [path] = re.findall(r'^\$Env:DOCKER_CERT_PATH = "(.*)"$', said.out, re.MULTILINE)
    read = re.sub(r"\$\(\[char\]0x([0-9A-F]{4})\)", lambda found: chr(int(found[1], 16)), path)
    assert read == certificates(dev)


def test_env_for_git_bash(dev: Store) -> None:
    said = dev.machine("env", "--shell", "bash", "dev", MSYSTEM="MINGW64")
    done = subprocess.run(
        ["bash", "-c", 'eval "$(cat)"; printf %s "$DOCKER_CERT_PATH"'],
        input=said.out,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    assert done.stdout == certificates(dev)


def test_ssh(dev: Store) -> None:
    said = dev.machine("ssh", "dev", "echo", "ü", "日本", "/etc/hostname")
    assert said.out == "ü 日本 /etc/hostname\n"
    assert dev.machine("ssh", "dev", "exit 7", code=7).out == ""


def test_stop_and_start(dev: Store) -> None:
    dev.machine("stop", "dev")
    assert dev.machine("status", "dev").lines == ["Stopped"]
    dev.machine("start", "dev")
    assert dev.machine("status", "dev").lines == ["Running"]
    assert "docker is ready" in dev.machine("logs", "dev").out
    dev.python(DOCKER, **variables(dev))


def test_a_snapshot(dev: Store) -> None:
    dev.machine("snapshot", "create", "dev", "sauber")
    [snapshot] = json.loads(dev.machine("snapshot", "ls", "--json", "dev").out)
    assert snapshot["name"] == "sauber"
    dev.machine("stop", "dev")
    dev.machine("snapshot", "restore", "dev", "sauber")
    assert dev.machine("status", "dev").lines == ["Running"]
    dev.python(DOCKER, **variables(dev))


def test_rm_leaves_nothing(dev: Store) -> None:
    dev.machine("rm", "-y", "dev")
    vboxmanage = dev.rig.prefix / "drive_c" / "Program Files" / "Oracle" / "VirtualBox" / "VBoxManage.exe"
    for kind in ("vms", "hdds", "dvds"):
        assert dev.rig.run(vboxmanage, "list", kind, env=dev.env).out == ""
    assert json.loads(dev.machine("ls", "--json").out) == []
    assert not list((dev.folder / "docker" / "contexts" / "meta").iterdir())
    # A helper that is just ending removes its own lock.
    until(lambda: not left(dev.folder / "store"), "nothing is left", timeout=60)


def left(folder: Path) -> list[str]:
    """What is of machines in a store."""
    return [str(path) for path in folder.rglob("*") if "dev" in path.name]
