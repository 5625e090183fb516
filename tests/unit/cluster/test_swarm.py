"""What a manager is asked, before a server in the engine's place."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.cluster import swarm
from machine.docker.api import Client
from machine.errors import CheckFailed, DockerFailed
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.spec import Address, Machine

NODE = {
    "ID": "n1",
    "Version": {"Index": 7},
    "Spec": {"Name": "", "Role": "manager", "Availability": "active", "Labels": {"a": "b"}},
    "Description": {"Hostname": "lab-m1"},
    "Status": {"State": "ready", "Addr": "10.77.5.2"},
    "ManagerStatus": {"Leader": True, "Reachability": "reachable", "Addr": "10.77.5.2:2377"},
}


class Engine:
    """answers: (method, path) -> status and JSON. asked: the requests, with their bodies."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []

    def serve(self) -> http.server.ThreadingHTTPServer:
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(size)) if size else None
                engine.asked.append((self.command, self.path, body))
                status, data = engine.answers.get((self.command, self.path.partition("?")[0]), (200, None))
                raw = b"" if data is None else json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def machine(name: str, port: int) -> Machine:
    values = (name, "lxc", "u", "52:54:00:00:00:01", "", 512, 1, 1024)
    return Machine(*values, tls=False, address=Address("127.0.0.1", port), network="machines")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def client(engine: Engine, tmp_path: Path) -> Iterator[Client]:
    with engine.serve() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made = machine("lab-m1", server.server_address[1])
        assert made.address
        yield Client(made, MachineFolder(tmp_path), made.address)
        server.shutdown()
        thread.join()


def test_a_swarm_begins_on_the_network(engine: Engine, client: Client) -> None:
    swarm.init(client, "10.77.5.2")
    ((method, path, body),) = engine.asked
    assert (method, path) == ("POST", "/swarm/init")
    assert body == {
        "ListenAddr": "10.77.5.2:2377",
        "AdvertiseAddr": "10.77.5.2",
        "DataPathAddr": "10.77.5.2",
        "DefaultAddrPool": ["10.78.0.0/16"],
        "SubnetSize": 24,
        "ForceNewCluster": False,
    }


@pytest.mark.parametrize("role", ["manager", "worker"])
def test_a_node_joins_with_the_token_of_its_role(engine: Engine, client: Client, role: str) -> None:
    engine.answers["GET", "/swarm"] = (200, {"JoinTokens": {"Manager": "token-manager", "Worker": "token-worker"}})
    swarm.join(client, "10.77.5.3", client, "10.77.5.2", role=role)
    body = engine.asked[-1][2]
    assert body["JoinToken"] == f"token-{role}"
    assert (body["RemoteAddrs"], body["AdvertiseAddr"]) == (["10.77.5.2:2377"], "10.77.5.3")


def test_a_node_keeps_what_isnt_changed(engine: Engine, client: Client) -> None:
    engine.answers["GET", "/nodes"] = (200, [NODE])
    (node,) = swarm.nodes(client)
    assert (node.hostname, node.role, node.leader, node.is_ready) == ("lab-m1", "manager", True, True)
    swarm.update(client, node, Availability="drain")
    assert engine.asked[-1][:2] == ("POST", "/nodes/n1/update?version=7")
    assert engine.asked[-1][2] == {"Name": "", "Role": "manager", "Availability": "drain", "Labels": {"a": "b"}}
    swarm.forget(client, node)
    assert engine.asked[-1][:2] == ("DELETE", "/nodes/n1?force=1")


@pytest.mark.parametrize(("reached", "has"), [((True,), True), ((True, False), False), ((True, True, False), True)])
def test_half_of_the_managers_are_no_quorum(
    engine: Engine, client: Client, reached: tuple[bool, ...], has: bool
) -> None:
    nodes = [{**NODE, "ManagerStatus": {"Reachability": "reachable" if one else "unreachable"}} for one in reached]
    worker = {**NODE, "Spec": {"Role": "worker", "Availability": "active"}, "ManagerStatus": None}
    engine.answers["GET", "/nodes"] = (200, [*nodes, worker])
    assert swarm.has_quorum(swarm.nodes(client)) is has


def test_services_that_lack_tasks(engine: Engine, client: Client) -> None:
    engine.answers["GET", "/services"] = (
        200,
        [
            {"Spec": {"Name": "web"}, "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2}},
            {"Spec": {"Name": "db"}, "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1}},
        ],
    )
    assert swarm.services_behind(client) == ["web"]


def test_a_manager_without_a_quorum_says_so(engine: Engine, client: Client) -> None:
    why = "rpc error: The swarm does not have a leader. It's possible that too few managers are online."
    engine.answers["GET", "/nodes"] = (503, {"message": why})
    with pytest.raises(DockerFailed) as caught:
        swarm.nodes(client)
    assert swarm.has_no_quorum(caught.value)
    engine.answers["GET", "/nodes"] = (406, {"message": "This node is not a swarm manager."})
    with pytest.raises(DockerFailed) as caught:
        swarm.nodes(client)
    assert not swarm.has_no_quorum(caught.value)


def test_what_an_engine_says_of_itself(engine: Engine, client: Client) -> None:
    own = {"LocalNodeState": "active", "NodeID": "n1", "ControlAvailable": True, "Error": ""}
    engine.answers["GET", "/info"] = (200, {"SystemTime": "now", "Swarm": own})
    assert swarm.membership(client) == swarm.Membership("active", "n1", True, "")


def test_where_others_reach_a_machine(tmp_path: Path) -> None:
    def at(host: str, network: str) -> str:
        values = ("lab-m1", "lxc", "u", "52:54:00:00:00:01", "", 512, 1, 1024)
        made = Machine(*values, address=Address(host), network=network)
        return swarm.address(Instance(made, MachineFolder(tmp_path)))

    assert at("127.77.5.2", "machines") == "10.77.5.2"
    assert at("192.168.122.7", "") == "192.168.122.7"
    with pytest.raises(CheckFailed, match="is on no network"):
        at("127.77.5.2", "")
