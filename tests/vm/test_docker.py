"""The real docker client, set by `machine env`: the everyday verbs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import testbed
from tests.testbed import Begun, execute, in_terminal, until
from tests.vm.conftest import Docker, Vm


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42"), 42),
        (("run", "--rm", "busybox", "false"), 1),
        (("run", "--rm", "--memory", "1k", "busybox"), 125),
        (("run", "--rm", "busybox", "/etc"), 126),
        (("run", "--rm", "busybox", "nosuchprogram"), 127),
    ],
    ids=["own", "false", "refused", "no-program", "not-found"],
)
def test_exit_codes(docker: Docker, words: tuple[str, ...], code: int) -> None:
    done = docker(*words, code=code)
    if code == 42:
        assert (done.out, done.err) == ("out\n", "err\n")


def test_standard_input_to_its_end(docker: Docker) -> None:
    """The client closes its half of the connection; the answer must still come."""
    text = os.urandom(500_000)
    done = docker("run", "-i", "--rm", "busybox", "sha256sum", input=text)
    assert done.out.split()[0] == hashlib.sha256(text).hexdigest()


def test_terminal(vm: Vm) -> None:
    script = "tty; stty size; read -r word; echo got $word; exit 3"
    argv = ["docker", "run", "-it", "--rm", "busybox", "sh", "-c", script]
    code, shown = in_terminal(argv, b"hello\n", env=vm.env)
    assert code == 3, shown
    assert "/dev/pts/0" in shown
    assert "got hello" in shown


def test_memory_limit(docker: Docker) -> None:
    assert docker("run", "--rm", "-m", "64m", "busybox", "cat", "/sys/fs/cgroup/memory.max").out == f"{64 << 20}\n"


@pytest.fixture(scope="module")
def box(vm: Vm) -> Iterator[str]:
    """A container that writes a line now and then, and serves HTTP."""
    serve = "mkdir /www; echo served >/www/index.html; httpd -h /www"
    script = f"{serve}; n=0; while true; do echo line $n; n=$((n+1)); sleep 1; done"
    vm.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    yield "box"
    vm.docker("rm", "-f", "box")


def test_exec(docker: Docker, box: str) -> None:
    assert docker("exec", box, "cat", "/www/index.html").out == "served\n"
    assert docker("exec", box, "sh", "-c", "exit 9", code=9).code == 9
    assert docker("exec", "-i", box, "cat", input=b"through").out == "through"


def test_logs_are_followed(vm: Vm, box: str) -> None:
    follower = Begun(["docker", "logs", "-f", box], vm.env)
    try:
        seen = until(lambda: "line 1" in follower.output(), "the first lines", 60)
        before = follower.output().count("\n")
        until(lambda: follower.output().count("\n") >= before + 2, "two more lines", 60)
        testbed.say(f"the first lines came after {seen:.1f} s")
    finally:
        follower.close()


def test_events(vm: Vm, box: str) -> None:
    watcher = Begun(["docker", "events", "--format", "{{json .}}", "--filter", "type=container"], vm.env)
    try:
        time.sleep(2)
        vm.docker("rename", box, "renamed")
        vm.docker("rename", "renamed", box)
        until(lambda: watcher.output().count("\n") >= 2, "two events", 30)
        actions = [json.loads(line)["Action"] for line in watcher.output().splitlines()]
        assert actions == ["rename", "rename"]
    finally:
        watcher.close()


def test_link(docker: Docker, box: str) -> None:
    done = docker("run", "--rm", "--link", f"{box}:web", "busybox", "wget", "-q", "-O", "-", "http://web/")
    assert done.out == "served\n"


def test_containers_of_a_network_find_each_other_by_name(docker: Docker, box: str) -> None:
    docker("network", "create", "net")
    try:
        docker("network", "connect", "--alias", "other", "net", box)
        fetch = "wget -q -O - http://box/ && wget -q -O - http://other/"
        assert docker("run", "--rm", "--network", "net", "busybox", "sh", "-c", fetch).out == "served\nserved\n"
        missing = docker("run", "--rm", "busybox", "wget", "-q", "-T", "5", "-O", "-", "http://box/", code=None)
        assert missing.code != 0
    finally:
        docker("network", "disconnect", "net", box, code=None)
        docker("network", "rm", "net")


DOCKERFILE = """\
FROM busybox
ARG WHO
COPY hello.sh /bin/hello.sh
RUN chmod +x /bin/hello.sh && echo "built for $WHO" >/built
ENTRYPOINT ["/bin/hello.sh"]
"""


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_build(vm: Vm, tmp_path: Path, builder: str) -> None:
    if builder == "buildkit" and execute(["docker", "buildx", "version"], env=vm.env, code=None).code != 0:
        pytest.skip("the client has no buildx here, and builds with BuildKit through nothing else")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "hello.sh").write_text("#!/bin/sh\ncat /built\necho $*\n")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    (tmp_path / "ignored").write_bytes(bytes(1 << 20))
    env = {**vm.env, "DOCKER_BUILDKIT": "1" if builder == "buildkit" else "0"}
    tag = f"hello:{builder}"
    vm.docker("build", "-t", tag, "--build-arg", "WHO=you", tmp_path, env=env)
    assert vm.docker("run", "--rm", tag, "again").out == "built for you\nagain\n"
    vm.docker("rmi", tag)


@pytest.mark.timeout(1200)
def test_a_hundred_megabytes_both_ways(vm: Vm, tmp_path: Path, name: str) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    with there.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1_000_000))
    vm.docker("create", "--name", name, "busybox")
    for source, target in ((there, f"{name}:/big"), (f"{name}:/big", back)):
        done = vm.docker("cp", "--quiet", source, target, timeout=550)
        testbed.say(f"docker cp of 100 MB: {done.seconds:.1f} s, {100 / done.seconds:.1f} MB/s")
    digests = [
        subprocess.run(["sha256sum", "-b", path], capture_output=True, check=True).stdout[:64] for path in (there, back)
    ]
    assert digests[0] == digests[1]
    assert back.stat().st_size == 100_000_000
