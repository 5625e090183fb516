"""A folder of the host in the machine and in containers: the same files on both sides, before and after a suspend."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import psutil
import pytest

from tests.testbed import until
from tests.vm.conftest import Docker, Vm
from tests.vm.full import FULL

# Seconds; the guest trusts for one second what it knows of a file.
SOON = 10.0
SUSPENDS = 50 if FULL else 2


def test_it_is_mounted_at_the_same_path(vm: Vm, host_folder: Path) -> None:
    (host_folder / "from the host").write_text("hello\n")
    assert vm.ssh(f"cat {shlex.quote(str(host_folder))}/*host").out == "hello\n"
    assert vm.ssh("cat '/host/read only/from the host'").out == "hello\n"
    refused = vm.ssh("sudo touch '/host/read only/x'", code=None)
    assert (refused.code, "Read-only" in refused.err) == (1, True)


def test_a_container_has_it(vm: Vm, docker: Docker, host_folder: Path) -> None:
    """What a container's root makes is the user's; and another user of a container may write it, too."""
    (host_folder / "sub").mkdir()
    bind = ("--rm", "-v", f"{host_folder}:/src", "-w", "/src")
    docker("run", *bind, "busybox", "sh", "-c", "echo one >made && chmod 640 made && mkfifo p 2>/dev/null; ls")
    assert (host_folder / "made").read_text() == "one\n"
    assert ((host_folder / "made").stat().st_uid, (host_folder / "made").stat().st_mode & 0o777) == (
        os.geteuid(),
        0o640,
    )
    script = "id -u && echo two >>made && stat -c %u made && mv made sub && ln -s sub/made link && cat link"
    done = docker("run", *bind, "--user", "1234", "busybox", "sh", "-c", script)
    assert done.out == "1234\n1234\none\ntwo\n"
    assert (host_folder / "sub/made").read_text() == "one\ntwo\n"
    assert (host_folder / "link").readlink() == Path("sub/made")
    (host_folder / "sub/made").write_text("three\n")
    until(lambda: docker("run", *bind, "busybox", "cat", "link").out == "three\n", "what the host wrote", SOON)


def test_a_container_that_has_no_folder_cant_ask_for_one(vm: Vm, docker: Docker) -> None:
    connect = "nc -w 5 10.0.2.100 2049 </dev/null"
    assert vm.ssh(connect, code=None).code == 0
    assert docker("run", "--rm", "busybox", "sh", "-c", connect, code=None).code == 1


def test_a_tree_goes_in_and_comes_out(vm: Vm, host_folder: Path, tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / f"tree/d{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"datei ü{number}").write_bytes(os.urandom(number * 100))
    with tarfile.open(host_folder / "tree.tar", "w") as archive:
        archive.add(tmp_path / "tree", "tree")
    vm.ssh(f"cd {shlex.quote(str(host_folder))} && tar -xf tree.tar && cp -r tree copy && rm -r tree")
    assert not (host_folder / "tree").exists()
    subprocess.run(["diff", "-r", host_folder / "copy", tmp_path / "tree"], check=True)
    shutil.rmtree(host_folder / "copy")
    until(lambda: vm.ssh(f"ls {shlex.quote(str(host_folder))}/copy", code=None).code != 0, "it to be gone", SOON)


def test_one_is_added_and_removed_while_the_machine_runs(vm: Vm, docker: Docker, tmp_path: Path) -> None:
    """It outlives a restart; a container that uses it keeps it from being removed."""
    folder = tmp_path / "added ü"
    folder.mkdir()
    (folder / "file").write_text("hello\n")
    vm.store.machine("mount", "add", vm.name, str(folder), f"{folder}:/added here:ro")
    docker("run", "-d", "--name", "user", "-v", f"{folder}:/src", "busybox", "sleep", "100000")
    assert docker("exec", "user", "cat", "/src/file").out == "hello\n"
    vm.ssh(f"echo from the machine >{shlex.quote(str(folder))}/back")
    assert (folder / "back").read_text() == "from the machine\n"
    assert "Read-only" in vm.ssh("sudo touch '/added here/x'", code=None).err
    assert f"{folder}\n" in vm.store.machine("mount", "ls", vm.name, "--format", "{{.Target}}").out
    refused = vm.store.machine("mount", "rm", vm.name, str(folder), code=1)
    assert "containers use it: user" in refused.err
    vm.machine("restart")
    docker("start", "user")
    assert docker("exec", "user", "cat", "/src/file").out == "hello\n"
    vm.store.machine("mount", "rm", "--force", vm.name, str(folder))
    assert docker("exec", "user", "cat", "/src/file", code=None).code == 1
    docker("rm", "-f", "user")
    assert vm.ssh(f"ls {shlex.quote(str(folder))} '/added here'").out.count("file") == 1
    vm.store.machine("mount", "rm", vm.name, "/added here")
    assert "added" not in vm.ssh("cat /proc/mounts").out


@pytest.mark.timeout(600 + 60 * SUSPENDS)
def test_it_goes_on_after_a_suspend_and_without_its_server(vm: Vm, docker: Docker, host_folder: Path) -> None:
    """A container that appends, and reads, loses nothing and sees no error."""
    script = (
        "i=0; while :; do i=$((i + 1)); echo $i >>/src/log || exit 1; [ $(tail -n 1 /src/log) = $i ] || exit 2; done"
    )
    docker("run", "-d", "--name", "writer", "-v", f"{host_folder}:/src", "busybox", "sh", "-c", script)
    log = host_folder / "log"

    def grows() -> None:
        before = log.stat().st_size if log.exists() else 0
        until(lambda: log.exists() and log.stat().st_size > before, "the container to write", 60)

    grows()
    for _ in range(SUSPENDS):
        vm.machine("suspend")
        assert vm.machine("status").out == "Saved\n"
        vm.machine("start")
        grows()
    for server in servers(vm):
        server.send_signal(signal.SIGKILL)
    grows()
    assert docker("inspect", "-f", "{{.State.Running}}", "writer").out == "true\n"
    docker("rm", "-f", "writer")
    numbers = [int(line) for line in log.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_host_that_answers_no_more_is_an_error_after_a_time(vm: Vm, docker: Docker, host_folder: Path) -> None:
    """Its database can't be opened, so each new server ends at once. `status` says so, and when all is well again."""
    docker("run", "-d", "--name", "reader", "-v", f"{host_folder}:/src", "busybox", "sleep", "100000")
    database = vm.store.folder_of(vm.name) / "folders.db"
    database.rename(database.with_name("kept"))
    database.mkdir()
    for server in servers(vm):
        server.kill()
    docker("exec", "-d", "reader", "sh", "-c", "ls /src 2>/tmp/errors; echo $? >/tmp/code")
    until(lambda: "what uses them waits" in vm.machine("status").err, "a warning", 300)
    assert docker("exec", "reader", "cat", "/tmp/code", code=None).code == 1
    until(lambda: docker("exec", "reader", "cat", "/tmp/code", code=None).out == "1\n", "an end of the waiting", 900)
    assert "Input/output error" in docker("exec", "reader", "cat", "/tmp/errors").out
    assert "what uses them got errors" in vm.machine("status").err
    database.rmdir()
    database.with_name("kept").rename(database)
    until(lambda: "host's folders" not in vm.machine("status").err, "the folders to be back", 300)
    docker("restart", "-t", "1", "reader")
    (host_folder / "back").touch()
    assert "back" in docker("exec", "reader", "ls", "/src").lines
    docker("rm", "-f", "reader")


def servers(vm: Vm) -> list[psutil.Process]:
    return [process for process in vm.store.processes() if "machine.folders" in process.cmdline()]
