"""A cluster of system containers, from create to rm. Services' virtual addresses need ip_vs, which may be missing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import testbed
from tests.testbed import places, until
from tests.testbed.places import LxcPlace

SIZE = ("--driver", "lxc", "--memory", "512M", "--cpus", "1", "--disk", "2G", "--mount", "none", "--timeout", "500")
NODES = ("--managers", "3", "--workers", "1")


@pytest.fixture(scope="module")
def place(images: Path, busybox_root: Path) -> Iterator[LxcPlace]:
    """With the cluster lab, whose nodes all have the image busybox."""
    with places.lxc(images) as place:
        testbed.say("creating a cluster of system containers")
        place.machine("cluster", "create", *NODES, *SIZE, "lab", timeout=900)
        for name in nodes(place):
            give_busybox(place, name, busybox_root)
        yield place
        place.close()


def give_busybox(place: LxcPlace, name: str, root: Path) -> None:
    archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
    place.docker(name, "import", "--change", 'CMD ["sh"]', "-", "busybox", input=archive)


def status(place: LxcPlace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.machine("cluster", "status", "--json", "lab", code=None).out)
    return found


def nodes(place: LxcPlace) -> dict[str, dict[str, str]]:
    return {node["name"]: node for node in status(place)["nodes"]}


def chosen(place: LxcPlace) -> str:
    """The manager that `cluster env` points to."""
    done = place.machine("cluster", "env", "--shell", "bash", "lab", code=None)
    return next((line.partition('"')[2].strip('"') for line in done.lines if "DOCKER_MACHINE_NAME" in line), "")


def is_whole(place: LxcPlace) -> bool:
    return bool(status(place)["lost"] == [])


def test_its_nodes_are_one_docker(place: LxcPlace) -> None:
    found = nodes(place)
    assert sorted(found) == ["lab-m1", "lab-m2", "lab-m3", "lab-w1"]
    assert [node["manager"] for node in found.values()].count("leader") == 1
    assert (status(place)["spare"], status(place)["lost"]) == (1, [])
    listed = place.docker(chosen(place), "node", "ls", "--format", "{{.Hostname}} {{.Status}}").lines
    assert sorted(listed) == [f"{name} Ready" for name in sorted(found)]
    assert place.machine("cluster", "ls", "-q").out == "lab\n"


def test_no_token_is_shown_or_kept(place: LxcPlace) -> None:
    token = place.docker("lab-m1", "swarm", "join-token", "-q", "worker").out.strip()
    assert token.startswith("SWMTKN-")
    kept = place.folder_of("lab-m1").parent.parent
    for path in (*kept.glob("clusters/*"), *kept.glob("networks/*/*"), *kept.glob("machines/*/*.log")):
        assert token.encode() not in path.read_bytes(), path


def test_create_again_changes_nothing(place: LxcPlace) -> None:
    before = place.docker("lab-m1", "node", "ls", "-q").lines
    place.machine("cluster", "create", *NODES, *SIZE, "lab", timeout=900)
    assert sorted(place.docker("lab-m1", "node", "ls", "-q").lines) == sorted(before)
    assert "machine cluster scale lab" in place.machine("cluster", "create", *SIZE, "lab", code=3).err


def test_containers_on_an_overlay_network_find_each_other(place: LxcPlace) -> None:
    manager = chosen(place)
    place.docker(manager, "network", "create", "--driver", "overlay", "--attachable", "net")
    run = ("--replicas", "4", "--network", "net", "--endpoint-mode", "dnsrr", "--detach", "--quiet")
    server = "mkdir /w && hostname >/w/index.html && exec httpd -f -p 80 -h /w"
    place.docker(manager, "service", "create", *run, "--name", "web", "busybox", "sh", "-c", server)

    def everywhere() -> bool:
        tasks = place.docker(manager, "service", "ps", "--format", "{{.Node}} {{.CurrentState}}", "web").lines
        return {line.split()[0] for line in tasks if "Running" in line} == set(nodes(place))

    until(everywhere, "a task on each node", 240)
    ask = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 $at 80 | tail -n 1"
    script = f"for at in $(nslookup -type=a web | sed -n 's/^Address: //p'); do {ask}; done"
    said = place.docker(manager, "run", "--rm", "--network", "net", "busybox", "sh", "-c", script).lines
    assert len(set(said)) == 4, said


def test_a_manager_may_be_lost(place: LxcPlace) -> None:
    first = chosen(place)
    place.machine("kill", first)
    until(lambda: chosen(place) not in ("", first), "another manager that answers", 120)
    until(lambda: status(place)["lost"] == [first], "the others under the new leader", 120)
    place.machine("cluster", "repair", "lab", timeout=900)
    assert is_whole(place)


def test_a_machine_that_is_gone_is_made_anew(place: LxcPlace) -> None:
    place.machine("rm", "-y", "-f", "lab-w1")
    assert nodes(place)["lab-w1"]["machine"] == "gone"
    place.machine("cluster", "repair", "lab", timeout=900)
    assert is_whole(place)
    assert len(place.docker(chosen(place), "node", "ls", "-q").lines) == 4, "the lost node is forgotten"


def test_all_are_suspended_and_resumed(place: LxcPlace) -> None:
    place.machine("suspend", *nodes(place))
    place.machine("resume", *nodes(place))
    until(lambda: is_whole(place), "all nodes", 240)


def test_most_managers_are_lost(place: LxcPlace) -> None:
    place.machine("rm", "-y", "-f", "lab-m1", "lab-m2")
    refused = place.machine("cluster", "repair", "lab", code=1, timeout=900)
    assert "--force-new-cluster" in refused.err
    place.machine("cluster", "repair", "--force-new-cluster", "lab", timeout=900)
    assert is_whole(place)
    assert "web" in place.docker("lab-m1", "service", "ls", "--format", "{{.Name}}").lines
    # The new machines lack its image: who waits for its tasks waits in vain.
    place.docker("lab-m1", "service", "rm", "web")


def test_it_gets_smaller(place: LxcPlace) -> None:
    place.machine("cluster", "scale", "--managers", "1", "--workers", "0", "lab", timeout=900)
    assert list(nodes(place)) == ["lab-m1"]
    assert place.machine("ls", "-q").out == "lab-m1\n"
    assert place.docker("lab-m1", "node", "ls", "--format", "{{.Hostname}}").out == "lab-m1\n"


def test_nothing_is_left(place: LxcPlace) -> None:
    place.machine("cluster", "rm", "-y", "lab")
    assert place.machine("cluster", "ls", "-q").out == place.machine("ls", "-q").out == ""
    assert list((place.folder_of("lab-m1").parent.parent / "clusters").iterdir()) == []
    assert place.left_outside() == []
