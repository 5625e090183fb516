"""Clients that nobody here wrote, set by the same variables: docker-py and docker-compose."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker as docker_py
import pytest

from tests.testbed import execute, until
from tests.vm.conftest import Vm


@pytest.fixture
def client(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker_py.DockerClient]:
    for variable in set(os.environ) - set(vm.env):
        monkeypatch.delenv(variable)
    client = docker_py.from_env(environment=vm.env, timeout=200)
    yield client
    client.close()


def test_docker_py(client: docker_py.DockerClient, vm: Vm) -> None:
    assert client.ping()
    assert client.api.base_url == f"https://{vm.address}:2375"
    output = client.containers.run("busybox", ["sh", "-c", "echo $WORD"], environment={"WORD": "hello"}, remove=True)
    assert output == b"hello\n"
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True, init=True)
    try:
        assert container.exec_run(["sh", "-c", "cat; exit 4"]).exit_code == 4
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("note")
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"text"))
        assert container.put_archive("/root", archive.getvalue())
        chunks, about = container.get_archive("/root/note")
        assert about["size"] == 4
        assert b"text" in b"".join(chunks)
    finally:
        container.remove(force=True)
    with pytest.raises(docker_py.errors.ContainerError):
        client.containers.run("busybox", "false", remove=True)


def test_docker_py_loses_nothing_of_a_hijacked_stream(client: docker_py.DockerClient) -> None:
    """docker-py reads an answer's head through a buffer and what follows past it: no record of TLS may hold both."""
    box = client.containers.run("busybox", ["sh", "-c", "echo one; echo two"], detach=True)
    try:
        box.wait()
        assert {client.api.attach(box.id, stream=False, logs=True) for _ in range(60)} == {b"one\ntwo\n"}
    finally:
        box.remove(force=True)


COMPOSE = """\
version: "3.7"
services:
  web:
    image: busybox
    command: sh -c "cp /data/page /www/index.html && exec httpd -f -h /www"
    volumes: ["pages:/data"]
    tmpfs: ["/www"]
    depends_on: [writer]
    restart: on-failure
    ports: ["8090:80"]
  writer:
    image: busybox
    command: sh -c "echo from $$WHO >/data/page; sleep 1000"
    environment: {WHO: compose}
    init: true
    volumes: ["pages:/data"]
  reader:
    image: busybox
    command: sh -c "until wget -q -O - http://web/; do sleep 1; done; sleep 1000"
    init: true
    depends_on: [web]
volumes:
  pages:
"""


def test_docker_compose(vm: Vm, tmp_path: Path) -> None:
    """Debian's docker-compose 1.29, which takes the version of the API from the engine: nothing needs to be pinned."""
    if not (compose := shutil.which("docker-compose")):
        pytest.fail(f"docker-compose isn't installed ({sys.platform}): see .ci/packages")
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    env = {**vm.env, "COMPOSE_PROJECT_NAME": "three"}

    def run(*words: str) -> str:
        return execute([compose, "--ansi", "never", *words], env=env, cwd=tmp_path, timeout=300).out

    run("up", "-d")
    try:
        until(lambda: vm.curl(8090) == "from compose\n", "the service web", 60)
        until(lambda: "from compose" in run("logs", "reader"), "the service reader to find web by its name", 60)
        assert len(run("ps", "-q").split()) == 3
        assert run("exec", "-T", "writer", "cat", "/data/page") == "from compose\n"
    finally:
        run("down", "--volumes", "--timeout", "1")
    assert vm.docker("ps", "-aq", "--filter", "label=com.docker.compose.project=three").out == ""
    assert vm.docker("volume", "ls", "-q", "--filter", "name=three_pages").out == ""
