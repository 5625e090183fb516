"""The verbs that ask, on a machine that runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.testbed import environment, execute, monitor, until
from tests.vm.conftest import Vm


def test_status_ip_and_url(shared: Vm) -> None:
    assert shared.machine("status").out == "Running\n"
    assert shared.machine("ip").out == f"{shared.address}\n"
    assert shared.machine("url").out == f"tcp://{shared.address}:2375\n"


def test_ls(shared: Vm) -> None:
    [row] = json.loads(shared.store.machine("ls", "--json").out)
    docker = shared.docker("version", "--format", "{{.Server.Version}}").out.strip()
    assert (row["name"], row["driver"], row["state"], row["docker"]) == ("default", "qemu", "Running", docker)
    assert (row["memory_mib"], row["cpus"], row["error"]) == (1024, 2, None)
    active = shared.store.machine("ls", "--filter", "label=stage=test", env=shared.env).lines[1].split()
    assert active[:5] == ["default", "*", "qemu", "Running", f"tcp://{shared.address}:2375"]


def test_active(shared: Vm) -> None:
    assert shared.store.machine("active", env=shared.env).out == "default\n"
    assert shared.store.machine("active", code=1).out == ""


def test_env_sets_the_client_and_unset_undoes_it(shared: Vm) -> None:
    assert {
        key: value for key, value in shared.env.items() if key.startswith("DOCKER_") and key != "DOCKER_CONFIG"
    } == {
        "DOCKER_HOST": f"tcp://{shared.address}:2375",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(shared.store.folder_of("default")),
        "DOCKER_MACHINE_NAME": "default",
    }
    undone = 'eval "$("$0" -m machine env --shell bash -u)" && env'
    python = shared.store.argv("env")[0]
    left = execute(["bash", "-c", undone, python], env=shared.env).out
    assert "DOCKER_HOST" not in left
    assert "DOCKER_TLS" not in left


def test_config(shared: Vm) -> None:
    script = 'docker $("$0" -m machine config default) version --format "{{.Server.Os}}"'
    assert execute(["bash", "-c", script, shared.store.argv("env")[0]], env=shared.store.env).out == "linux\n"


def test_inspect(shared: Vm) -> None:
    assert (
        shared.machine("inspect", "--format", "{{.Driver.IPAddress}} {{.State}}").out == f"{shared.address} Running\n"
    )
    assert json.loads(shared.machine("inspect").out)["HostOptions"]["EngineOptions"]["Labels"] == ["stage=test"]


def test_version(shared: Vm) -> None:
    assert shared.machine("version").out == shared.docker("version", "--format", "{{.Server.Version}}").out


def test_logs(shared: Vm) -> None:
    """A clone's console begins where its template's ended: so something is written to it."""
    shared.ssh("for n in 1 2 3; do echo line $n | sudo tee /dev/ttyS0 >/dev/null; done")
    until(lambda: "line 3" in shared.machine("logs").out, "the lines on the console", 30)
    everything = shared.machine("logs").lines
    assert [line for line in everything if line.startswith("line ")] == ["line 1", "line 2", "line 3"]
    assert shared.machine("logs", "-n", "2").lines == everything[-2:]


def test_create_of_a_name_that_is_there(shared: Vm) -> None:
    refused = shared.store.machine("create", "default", code=1)
    assert 'Docker machine "default" already exists' in refused.err
    assert shared.machine("status").out == "Running\n"


def test_a_guest_that_hangs_keeps_nobody_waiting(shared: Vm) -> None:
    home = shared.store.folder_of("default")
    monitor(home, "stop")
    try:
        listed = shared.store.machine("ls", "--json", "--timeout", "5", timeout=60)
        assert json.loads(listed.out)[0]["state"] == "Paused"
        assert shared.machine("status").out == "Paused\n"
        shared.ssh("true", code=1, timeout=60)
    finally:
        monitor(home, "cont")
    assert shared.docker("version").code == 0


def test_a_qemu_that_hangs_keeps_nobody_waiting(shared: Vm) -> None:
    qemu = shared.store.qemu("default")
    os.kill(qemu.pid, signal.SIGSTOP)
    try:
        listed = shared.store.machine("ls", "--json", "--timeout", "5", timeout=60)
        assert json.loads(listed.out)[0]["state"] in {"Error", "Timeout"}
        shared.machine("status", code=None, timeout=60)
        assert shared.machine("env").out.count("export DOCKER_") == 4
    finally:
        os.kill(qemu.pid, signal.SIGCONT)
    until(lambda: shared.machine("status").out == "Running\n", "QEMU to go on", 60)


def test_a_container_of_the_guest_can_be_reached_over_ssh(shared: Vm) -> None:
    """What docker's ssh:// transport needs: a session in which `docker system dial-stdio` works."""
    request = b"GET /_ping HTTP/1.0\r\n\r\n"
    assert shared.ssh("docker", "system", "dial-stdio", input=request).out.endswith("OK")
    assert environment().get("DOCKER_HOST") is None


def test_copying_what_has_changed_only(shared: Vm, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/one").write_text("1")
    shared.store.machine("scp", "-q", "-r", "--delta", str(tmp_path / "tree"), f"{shared.name}:")
    (tmp_path / "tree/two").write_text("2")
    shared.store.machine("scp", "-q", "-r", "--delta", str(tmp_path / "tree"), f"{shared.name}:")
    assert shared.ssh("cat tree/one tree/two").out == "12"
    shared.ssh("rm -r tree")
