"""machine docker-context, with the real docker client: it needs no daemon for contexts."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest

from machine import store
from machine.docker import contexts
from machine.docker.api import Client
from machine.guest import credentials
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.spec import Address
from tests.fixture_types import Add, Invoke, Made

pytestmark = pytest.mark.skipif(not shutil.which("docker"), reason="needs the docker client")


class Docker(Protocol):
    """Run the docker client, which has a configuration of its own, in a folder with a comma in its name."""

    def __call__(self, *words: str) -> str: ...


@pytest.fixture(autouse=True)
def docker(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def call(*words: str) -> str:
        return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout

    return call


@pytest.fixture
def made(add: Add) -> Made:
    def make(name: str = "default", **fields: Any) -> MachineFolder:
        machine = add(name, uuid=name, **fields)
        folder = store.folder_of(name)
        credentials.prepare(Instance(machine, folder).driver)
        return folder

    return make


def test_make_use_and_remove(invoke: Invoke, made: Made, docker: Docker) -> None:
    folder = made()
    assert invoke("docker-context").out == "docker --context machine-default\n"
    found = json.loads(docker("context", "inspect", "machine-default"))[0]
    assert found["Endpoints"]["docker"]["Host"] == "tcp://127.77.0.2:2375"
    assert sorted(found["TLSMaterial"]["docker"]) == ["ca.pem", "cert.pem", "key.pem"]
    copied = Path(found["Storage"]["TLSPath"]) / "docker"
    assert (copied / "key.pem").read_bytes() == folder.key.read_bytes()
    assert json.loads(invoke("docker-context", "--json").out) == [
        {"name": "default", "context": "machine-default", "changed": False}
    ]
    assert invoke("docker-context", "--use").code == 0
    assert docker("context", "show").strip() == "machine-default"
    assert invoke("docker-context", "--remove").out == "Removed docker context machine-default\n"
    assert docker("context", "show").strip() == "default"
    assert invoke("docker-context", "--remove").out == "There is no docker context machine-default\n"


def test_new_certificates_reach_it(invoke: Invoke, made: Made, docker: Docker) -> None:
    folder = made()
    invoke("docker-context")
    invoke("regenerate-certs", "-f", "-q", "--client-certs")
    found = json.loads(docker("context", "inspect", "machine-default"))[0]
    assert (Path(found["Storage"]["TLSPath"]) / "docker/cert.pem").read_bytes() == folder.cert.read_bytes()


def test_a_path_with_a_comma(made: Made, tmp_path: Path, docker: Docker) -> None:
    folder = MachineFolder(tmp_path / 'a, "b"')
    shutil.copytree(made().path, folder.path)
    assert contexts.write(Client(store.load("default"), folder, Address("127.0.0.1")))
    assert "tcp://127.0.0.1:2375" in docker("context", "inspect", "machine-default")


def test_without_tls(invoke: Invoke, made: Made, docker: Docker) -> None:
    made(tls=False)
    invoke("docker-context")
    found = json.loads(docker("context", "inspect", "machine-default"))[0]
    assert found["TLSMaterial"] == {}


def test_one_of_somebody_else_is_left_alone(invoke: Invoke, made: Made, docker: Docker) -> None:
    made()
    docker("context", "create", "machine-default", "--docker", "host=tcp://192.0.2.1:2375")
    ended = invoke("docker-context")
    assert (ended.code, "is for another engine" in ended.err) == (1, True)
    assert "There is no" in invoke("docker-context", "--remove").out
    invoke("rm", "-y", "default")
    assert "192.0.2.1" in docker("context", "inspect", "machine-default")


def test_create_makes_one_and_rm_removes_it(invoke: Invoke, vms: Path, docker: Docker) -> None:
    assert invoke("create", "--context", "-q", "web").code == 0
    assert "machine-web" in docker("context", "ls", "-q").split()
    assert invoke("rm", "-y", "web").code == 0
    assert docker("context", "ls", "-q").split() == ["default"]


def test_without_a_docker_client(invoke: Invoke, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert invoke("docker-context").code == 3
    assert invoke("create", "--context", "web").code == 3
    assert store.names() == ["default"]
