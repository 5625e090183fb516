"""Docker's own clustering, by the engine's API (docs.docker.com/reference/api/engine, "Swarm" and "Node").

Tokens are fetched where they are used: they are never kept, printed, or part of a command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from machine.docker.api import Client
from machine.errors import CheckFailed, DockerFailed
from machine.instance import Instance
from machine.network import addresses

# Seconds. In software emulation `init` took 10 s and a manager's `join` 29 s.
TIMEOUT = 180.0
PORT = 2377
# Swarm's own default is 10.0.0.0/8, whose third network is that of QEMU's cards: 10.0.2.0/24.
POOL, POOL_PREFIX = "10.78.0.0/16", 24


@dataclass(frozen=True)
class Node:
    """hostname: the machine's name. reachability: of a manager, "" for a worker."""

    id: str
    hostname: str
    role: str
    status: str
    availability: str
    reachability: str
    leader: bool
    version: int
    spec: dict[str, Any]

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


@dataclass(frozen=True)
class Membership:
    """What an engine says of itself. state: inactive, pending, active, error or locked."""

    state: str
    node: str
    controls: bool
    error: str


def address(instance: Instance) -> str:
    """Where the other nodes reach a machine. Raises CheckFailed."""
    machine = instance.machine
    if machine.network and (found := addresses.of(machine.address)):
        return found
    host = instance.address.host
    if host.startswith("127."):
        raise CheckFailed(
            f'other machines can\'t reach "{instance.name}": it is on no network',
            hint="leave out --network none; docs/networks.md says which drivers have networks",
        )
    return host


def membership(client: Client) -> Membership:
    """Raises DockerFailed."""
    swarm = client.info().get("Swarm")
    assert isinstance(swarm, dict)
    return Membership(
        str(swarm.get("LocalNodeState", "")),
        str(swarm.get("NodeID", "")),
        bool(swarm.get("ControlAvailable")),
        str(swarm.get("Error", "")),
    )


def init(client: Client, at: str, *, force: bool = False) -> None:
    """Make the engine the first manager of a swarm. force: of the one that it was in, whose other managers are lost."""
    own = {"ListenAddr": f"{at}:{PORT}", "AdvertiseAddr": at, "DataPathAddr": at}
    pool = {"DefaultAddrPool": [POOL], "SubnetSize": POOL_PREFIX}
    client.post("/swarm/init", {**own, **pool, "ForceNewCluster": force})


def join(client: Client, at: str, manager: Client, manager_at: str, *, role: str) -> None:
    """Make the engine a node of the manager's swarm. role: "manager" or "worker"."""
    swarm: Any = manager.get("/swarm")
    own = {"ListenAddr": f"{at}:{PORT}", "AdvertiseAddr": at, "DataPathAddr": at}
    token = swarm["JoinTokens"][role.capitalize()]
    client.post("/swarm/join", {**own, "RemoteAddrs": [f"{manager_at}:{PORT}"], "JoinToken": token})


def leave(client: Client) -> None:
    client.post("/swarm/leave?force=1")


def nodes(client: Client) -> list[Node]:
    """All nodes that the manager knows, those of lost machines too. Raises DockerFailed without a quorum."""
    answer: Any = client.get("/nodes")
    return [_node(one) for one in answer]


def _node(data: dict[str, Any]) -> Node:
    manager = data.get("ManagerStatus") or {}
    return Node(
        id=data["ID"],
        hostname=data["Description"]["Hostname"],
        role=data["Spec"]["Role"],
        status=data["Status"]["State"],
        availability=data["Spec"]["Availability"],
        reachability=manager.get("Reachability", ""),
        leader=bool(manager.get("Leader")),
        version=data["Version"]["Index"],
        spec=data["Spec"],
    )


def update(client: Client, node: Node, **changes: str) -> None:
    """Change a node's Role or Availability."""
    client.post(f"/nodes/{node.id}/update?version={node.version}", {**node.spec, **changes})


def forget(client: Client, node: Node) -> None:
    """Remove a node that is down, or has left."""
    client.delete(f"/nodes/{node.id}?force=1")


def services_behind(client: Client) -> list[str]:
    """The services that have fewer running tasks than they want; status is asked of the manager, which counts."""
    answer: Any = client.get("/services?status=true")
    behind = []
    for one in answer:
        status = one.get("ServiceStatus") or {}
        if status.get("RunningTasks", 0) < status.get("DesiredTasks", 0):
            behind.append(str(one["Spec"]["Name"]))
    return behind


def has_quorum(nodes: list[Node]) -> bool:
    """Whether more than half of the managers are reached. One that lost the others answers for a while as before."""
    managers = [node for node in nodes if node.reachability]  # those that Raft counts
    return 2 * sum(node.reachability == "reachable" for node in managers) > len(managers)


def has_no_quorum(error: DockerFailed) -> bool:
    """Whether a manager says that too many others are lost."""
    return "does not have a leader" in error.message or "no elected cluster leader" in error.message
