"""machine.yaml with real machines: system containers, where what is provisioned and shared is the same, and quick."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed import Done, execute, places, until
from tests.testbed.places import LxcPlace

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = re.compile(r"web (web\d), app (app\d), database (db\d), visit (\d+)\n")
FILE = """\
name: try
machines:
  one:
    memory: {memory}
    cpus: 1
    disk: 2G
    mount: [none]
    provision:
      - {{script: "echo $(id -un) $MACHINE_NAME; docker version >/dev/null", name: as root}}
      - {{script: "echo $(id -un) $HOME", mode: user, name: as its user}}
      - {{script: "date +%s%N >/etc/booted", mode: boot, name: at boot}}
      - {{copy: {{from: data, to: /home/docker/, owner: docker, mode: 0640}}, name: a folder}}
    probes: [{{command: "test -s /etc/booted && test -e /home/docker/data/x", name: both}}]
"""


@pytest.fixture
def place(images: Path) -> Iterator[LxcPlace]:
    with places.lxc(images) as place:
        # For scripts that call it.
        folder = place.folder / "bin"
        folder.mkdir()
        (folder / "machine").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m machine "$@"\n')
        (folder / "machine").chmod(0o755)
        place.env["PATH"] = f"{folder}:{place.env['PATH']}"
        yield place
        place.close()
        assert place.left_outside() == []


def test_a_machine_is_provisioned_and_changed(place: LxcPlace, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").touch()

    def machine(*words: str, code: int = 0) -> Done:
        return place.machine(*words, cwd=tmp_path, timeout=300, code=code)

    (tmp_path / "machine.yaml").write_text(FILE.format(memory="512M"))
    assert machine("up").out == 'Machine "one" was made.\n'
    place.note("one")
    log = machine("logs", "--provision", "one").out
    assert "\nroot one\n" in log
    assert "\ndocker /home/docker\n" in log
    listed = machine("ssh", "one", "ls -ln /home/docker/data/x; id -u docker").out.split()
    assert listed[0].startswith("-rw-r-----")
    assert listed[2] == listed[-1]
    before = machine("ssh", "one", "cat /etc/booted").out
    assert machine("up").out == "The project try is as machine.yaml says: there is nothing to do.\n"
    machine("restart", "one")
    assert machine("ssh", "one", "cat /etc/booted").out != before
    (tmp_path / "machine.yaml").write_text(FILE.format(memory="640M"))
    assert "    memory: 512 MiB -> 640 MiB" in machine("plan", "--check", code=2).lines
    assert machine("up").out == 'Machine "one": Memory changed now. It works.\n'
    machine("plan", "--check")
    assert machine("down").out == 'Machine "one" was stopped.\n'
    assert machine("down", "--rm", "-y").out == "Successfully removed one\n"


@pytest.mark.slow  # another machine, for what the test above shows in part
def test_a_ci_run(place: LxcPlace, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "ci", tmp_path / "ci")
    done = execute([tmp_path / "ci/run", "--arg", "memory=512M"], env=place.env, timeout=400)
    assert "tests ran on Linux\n" in done.out
    assert place.machine("ls", "-q").out == ""


class Stack:
    """The example's machine, with all its containers up."""

    def __init__(self, place: LxcPlace, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.address = place.note("stack")
        self.env = place.docker_env("stack")

    def run(self, *words: str) -> str:
        return execute(words, env=self.env, cwd=self.folder, timeout=600).out

    def page(self) -> tuple[str, ...] | None:
        url = f"http://{self.address}:8080/"
        done = execute(["curl", "-sS", "-f", "-m", "30", url], env=self.env, code=None)
        found = PAGE.fullmatch(done.out)
        return found.groups() if done.code == 0 and found else None

    def pages(self, count: int) -> list[tuple[str, ...]]:
        """So many, each of which must come."""
        found = [self.page() for _ in range(count)]
        assert all(found), found
        return [page for page in found if page]

    def visits(self, database: str) -> int:
        return int(self.run("docker", "exec", f"stack_{database}_1", "redis-cli", "get", "visits") or 0)

    def wait(self, what: str) -> None:
        until(self.page, what, 300)


@pytest.mark.slow  # its image takes minutes to make, of packages of this host's Debian mirror
def test_the_stack(place: LxcPlace, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    shutil.copytree(EXAMPLES / "stack", folder)
    place.machine("up", cwd=folder, timeout=300)
    stack = Stack(place, folder)
    execute([folder / "image.sh"], env=stack.env, timeout=1500)
    linked = stack.run("./links.sh").splitlines()
    assert re.fullmatch(r"DB_PORT_6379_TCP_ADDR=172\.\d+\.\d+\.\d+", linked[1])
    assert linked[2:4] == ["1", "2"]

    stack.run("docker-compose", "up", "-d")
    stack.wait("the page")
    pages = stack.pages(8)
    assert {page[0] for page in pages} == {"web1", "web2"}
    assert {page[1] for page in pages} == {"app1", "app2"}
    counts = [int(page[3]) for page in pages]
    assert counts == list(range(counts[0], counts[0] + 8))

    stack.run("docker", "kill", "stack_app1_1")
    assert {page[1] for page in stack.pages(6)} == {"app2"}

    [primary] = {page[2] for page in stack.pages(1)}
    before = int(stack.pages(1)[0][3])
    until(lambda: all(stack.visits(name) >= before for name in ("db1", "db2", "db3")), "all to have the counter")
    stack.run("docker", "kill", f"stack_{primary}_1")
    until(lambda: (page := stack.page()) and page[2] != primary, "another primary", 300)
    after = int(stack.pages(1)[0][3])
    assert after > before

    place.machine("restart", "stack", timeout=600)
    stack.wait("the page after a restart")
    until(lambda: {page[1] for page in stack.pages(4)} == {"app1", "app2"}, "all servers", 300)
    assert int(stack.pages(1)[0][3]) > after
    stack.run("docker-compose", "down", "-v", "--timeout", "1")
    place.machine("down", "--rm", "-y", cwd=folder, timeout=300)
