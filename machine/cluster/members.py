"""The machines of a cluster, asked at once: which is up, which is a node of the swarm, which answers for it."""

from __future__ import annotations

from dataclasses import dataclass

from machine import probe, store
from machine.cluster import swarm
from machine.cluster.record import Cluster
from machine.cluster.swarm import Membership, Node
from machine.docker.api import Client
from machine.errors import DockerFailed, DriverFailed, MachineError
from machine.instance import Instance, load
from machine.spec import State

# Seconds for each machine's answer.
ANSWER = 15.0


@dataclass
class Member:
    """One machine of a cluster. state: "" when there is no such machine; membership: None when its Docker is silent."""

    name: str
    role: str
    state: str = ""
    membership: Membership | None = None
    why: str = ""

    @property
    def controls(self) -> bool:
        return bool(self.membership and self.membership.controls)

    @property
    def instance(self) -> Instance:
        return load(self.name)

    @property
    def client(self) -> Client:
        return self.instance.docker(swarm.TIMEOUT)


@dataclass
class Members:
    """nodes: what the swarm says of itself; None while no manager answers, or too many are lost: see trouble."""

    all: list[Member]
    manager: Member | None = None
    nodes: list[Node] | None = None
    trouble: str = ""
    no_quorum: bool = False

    def node(self, name: str) -> Node | None:
        """The swarm's node of that machine: by what the machine says of itself, else the one that has its name."""
        member = next((one for one in self.all if one.name == name), None)
        own = member.membership.node if member and member.membership else ""
        nodes = self.nodes or []
        return next((node for node in nodes if node.id == own), None) or (
            None if own else next((node for node in nodes if node.hostname == name), None)
        )

    def lead(self) -> Client:
        """A manager that answers for the swarm. Raises DriverFailed."""
        if self.manager and self.nodes is not None:
            return self.manager.client
        raise DriverFailed(self.trouble or "no manager of the cluster answers", hint="machine cluster repair NAME")


def ask(cluster: Cluster) -> Members:
    """Ask each machine of the cluster, and then a manager."""
    members = [Member(name, "manager") for name in cluster.managers]
    members += [Member(name, "worker") for name in cluster.workers]

    def look(member: Member) -> None:
        try:
            _look(member)
        except MachineError as error:
            member.why = error.message

    probe.together([lambda member=member: look(member) for member in members], timeout=2 * ANSWER)  # type: ignore[misc]
    found = Members(members)
    for member in members:
        if not member.controls:
            continue
        try:
            found.nodes = swarm.nodes(member.instance.docker(ANSWER))
        except DockerFailed as error:
            found.no_quorum |= swarm.has_no_quorum(error)
            found.trouble = error.message
            continue
        if swarm.has_quorum(found.nodes):
            found.manager, found.trouble, found.no_quorum = member, "", False
            break
        found.trouble, found.no_quorum = "too many of its managers are lost", True
    return found


def _look(member: Member) -> None:
    if not store.exists(member.name):
        return
    instance = member.instance
    state = instance.state(timeout=ANSWER)
    member.state = state or "Timeout"
    if state is State.RUNNING:
        member.membership = swarm.membership(instance.docker(ANSWER))
        member.why = member.membership.error
