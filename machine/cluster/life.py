"""Making a swarm of a cluster's machines, and changing it. Each step looks before it acts: run again, it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import create, lifecycle, registry, store, wait
from machine.cluster import members, record, swarm
from machine.cluster.members import Member, Members
from machine.cluster.record import Cluster
from machine.cluster.swarm import Node
from machine.docker.api import Client
from machine.driver import Kind
from machine.errors import CheckFailed, DockerFailed, DriverFailed, MachineError
from machine.progress import Progress
from machine.spec import Machine
from machine.upgrade import upgrade as upgrade_machine

# Seconds.
# A node that has joined is ready when the managers have heard of it; a manager's demotion takes Raft some rounds.
SETTLE = 300.0
# There while the module ip_vs is loaded, which swarm's load balancing needs.
IPVS = Path("/proc/net/ip_vs")
# A service's tasks come back on another node.
SERVICES = 600.0
# Managers that were started elect a leader within that.
ELECTION = 30.0


def prepared(name: str, managers: int, workers: int, template: Machine) -> Cluster:
    """The cluster's record, written if it isn't there. Raises Usage, CheckFailed."""
    record.check_name(name)
    record.check_sizes(managers, workers)
    if found := record.find(name):
        if (len(found.managers), len(found.workers)) != (managers, workers):
            raise CheckFailed(
                f'the cluster "{name}" has {len(found.managers)} managers and {len(found.workers)} workers',
                hint=f"machine cluster scale {name} --managers {managers} --workers {workers}",
            )
        return found
    if not template.network:
        raise CheckFailed(
            f"machines of the driver {template.driver} without a network can't be a cluster",
            hint="docs/networks.md says which drivers have networks",
        )
    cluster = Cluster(name, (), (), dataclasses.replace(template, name=name)).sized(managers, workers)
    if taken := [node for node in cluster.nodes if store.exists(node)]:
        raise CheckFailed(f"there is a machine {taken[0]} already", hint="choose another name")
    record.save(cluster)
    return cluster


def lacks(template: Machine) -> str:
    """What a cluster of such machines can't do, in words; "" if nothing."""
    if registry.load(template.driver).kind is not Kind.CONTAINER or IPVS.exists():
        return ""
    return (
        "this computer's kernel has no ip_vs loaded, which system containers would share: services' virtual addresses "
        "and published ports don't work; --endpoint-mode dnsrr does"
    )


def make(cluster: Cluster, name: str, progress: Progress, *, timeout: float) -> None:
    """Make one machine of the cluster, or start it if it is there."""
    if store.exists(name):
        lifecycle.start(name, progress, timeout=timeout)
        return
    template = cluster.template
    memory, cpus, disk = template.memory_mib, template.cpus, template.disk_mib
    new = create.draft(name, template.driver, template.image, memory_mib=memory, cpus=cpus, disk_mib=disk)
    machine = dataclasses.replace(template, name=name, uuid=new.uuid, mac=new.mac, created=new.created)
    create.create(machine, progress, timeout=timeout, needs_mounts=False)


def form(cluster: Cluster, progress: Progress) -> None:
    """Make one swarm of the cluster's machines, all of which run. Raises DriverFailed, DockerFailed, WaitTimeout."""
    found = members.ask(cluster)
    silent = [member for member in found.all if not member.membership]
    if silent:
        raise DriverFailed(f"{silent[0].name} doesn't answer: {silent[0].why or silent[0].state or 'there is none'}")
    if found.manager is None:
        _init(cluster, found, progress)
        found = members.ask(cluster)
    client, manager = found.lead(), found.manager
    assert manager
    known = {node.id for node in found.nodes or []}
    for member in found.all:
        if member.membership and member.membership.node in known:
            continue
        progress.phase(f"joining {member.name} as a {member.role}")
        _join(member, manager)
    for name in cluster.nodes:
        await_ready(manager, name, progress)
    _forget_lost(client, cluster, members.ask(cluster))


def _init(cluster: Cluster, found: Members, progress: Progress) -> None:
    if found.no_quorum or any(member.membership and member.membership.state == "active" for member in found.all):
        raise DriverFailed(
            "the swarm has no leader: too many of its managers are lost", hint=f"machine cluster repair {cluster.name}"
        )
    first = found.all[0]
    progress.phase(f"making {first.name} the first manager")
    swarm.init(first.client, swarm.address(first.instance))


def _join(member: Member, manager: Member) -> None:
    assert member.membership
    client = member.client
    if member.membership.state != "inactive":
        swarm.leave(client)  # a swarm that is gone, or a join that was interrupted
    at, manager_at = swarm.address(member.instance), swarm.address(manager.instance)
    swarm.join(client, at, manager.client, manager_at, role=member.role)


def await_ready(manager: Member, name: str, progress: Progress) -> None:
    """Wait until the machine is a node that is ready. Raises WaitTimeout."""
    own = swarm.membership(members.Member(name, "").client).node

    def is_ready() -> bool:
        with contextlib.suppress(DockerFailed):
            return any(node.id == own and node.is_ready for node in swarm.nodes(manager.client))
        return False

    progress.phase(f"waiting for {name} to be ready")
    wait.until(is_ready, timeout=SETTLE, what=f"{name} to be ready")


def _forget_lost(client: Client, cluster: Cluster, found: Members) -> None:
    """Remove nodes that have the name of a machine which is another node by now."""
    own = {member.membership.node for member in found.all if member.membership}
    for node in found.nodes or []:
        if node.id not in own and node.hostname in cluster.nodes:
            if node.reachability:
                swarm.update(client, node, Role="worker")
                wait.until(lambda node=node: _is_worker(client, node), timeout=SETTLE, what="its demotion")  # type: ignore[misc]
            swarm.forget(client, node)


def _is_worker(client: Client, node: Node) -> bool:
    return any(one.id == node.id and one.role == "worker" and not one.reachability for one in swarm.nodes(client))


def take_out(cluster: Cluster, name: str, progress: Progress) -> None:
    """Take one node out of the swarm, its services first, and remove its machine."""
    found = members.ask(cluster)
    node = found.node(name)
    if node:
        keeper = next((one for one in found.all if one.controls and one.name != name), None)
        if keeper is None:
            hint = f"machine cluster status {cluster.name}"
            raise DriverFailed(f"{name} is the only manager that answers", hint=hint)
        client = keeper.client
        drain(client, name, node, progress)
        if node.role == "manager":
            progress.phase(f"demoting {name}")
            swarm.update(client, _again(client, node), Role="worker")
            wait.until(lambda: _is_worker(client, node), timeout=SETTLE, what=f"the demotion of {name}")
        member = next(one for one in found.all if one.name == name)
        if member.membership:
            progress.phase(f"taking {name} out of the swarm")
            swarm.leave(member.client)
        swarm.forget(client, node)
    if store.exists(name):
        lifecycle.remove(name, progress)


def _again(client: Client, node: Node) -> Node:
    """The node as it is now: an update must name its version."""
    return next(one for one in swarm.nodes(client) if one.id == node.id)


def drain(client: Client, name: str, node: Node, progress: Progress) -> None:
    """Have the swarm run the node's tasks elsewhere, and wait for it."""
    progress.phase(f"draining {name}")
    swarm.update(client, _again(client, node), Availability="drain")
    await_services(client, progress)


def await_services(client: Client, progress: Progress) -> None:
    """Wait until each service has as many tasks as it wants. Gives up with a note: it may want what isn't there."""
    progress.phase("waiting for the services")

    def are_back() -> bool:
        with contextlib.suppress(DockerFailed):
            return not swarm.services_behind(client)
        return False

    try:
        wait.until(are_back, timeout=SERVICES, what="the services")
    except MachineError:
        progress.note(f"services that lack tasks: {', '.join(swarm.services_behind(client))}")


def shrink(cluster: Cluster, smaller: Cluster, progress: Progress) -> None:
    """Take out the nodes that the smaller cluster lacks, workers first; each is gone from the record at once."""
    for name in (name for name in reversed(cluster.nodes) if name not in smaller.nodes):
        take_out(cluster, name, progress)
        cluster = dataclasses.replace(
            cluster,
            managers=tuple(one for one in cluster.managers if one != name),
            workers=tuple(one for one in cluster.workers if one != name),
        )
        record.save(cluster)


def upgrade(cluster: Cluster, progress: Progress, *, timeout: float) -> list[str]:
    """Renew one node after the other, the leader last; returns what was done."""
    done = []
    for name in _rolling(cluster):
        found = members.ask(cluster)
        client = _other(found, name).client
        node = found.node(name)
        if node is None or not node.is_ready:
            raise DriverFailed(f"{name} isn't ready", hint=f"machine cluster repair {cluster.name}")
        if len(cluster.nodes) > 1:
            drain(client, name, node, progress)
        try:
            what = upgrade_machine(name, progress, timeout=timeout)
            await_ready(_other(members.ask(cluster), name), name, progress)
        finally:
            client = _other(members.ask(cluster), name).client
            swarm.update(client, _again(client, node), Availability="active")
        await_services(client, progress)
        done.append(f"{name}: {what or 'up to date'}")
    return done


def _rolling(cluster: Cluster) -> Sequence[str]:
    found = members.ask(cluster)
    found.lead()
    leaders = [node.hostname for node in found.nodes or [] if node.leader]
    return sorted(cluster.nodes, key=lambda name: (name in leaders, name in cluster.managers, name))


def _other(found: Members, name: str) -> Member:
    """A manager that answers, rather another one than that."""
    able = [member for member in found.all if member.controls]
    if not able:
        raise DriverFailed("no manager of the cluster answers", hint="machine cluster status NAME")
    return next((member for member in able if member.name != name), able[0])


def repair(
    cluster: Cluster,
    progress: Progress,
    revive: Callable[[list[str]], None],
    *,
    timeout: float,
    force_new_cluster: bool = False,
) -> None:
    """Bring back what is lost: start machines, make lost ones anew, join them. revive starts or makes machines.

    Raises DriverFailed without a quorum unless force_new_cluster.
    """
    lost = [member.name for member in members.ask(cluster).all if not member.membership]
    if lost:
        revive(lost)
    found = _quorum(cluster)
    if found.no_quorum:
        if not force_new_cluster:
            raise DriverFailed(
                "the swarm has no leader: more than half of its managers are lost",
                details="A new swarm can be made of one manager: it keeps services, networks, secrets and workers, and "
                "the other managers join it anew. What the lost managers alone knew is gone.",
                hint=f"machine cluster repair --force-new-cluster {cluster.name}",
            )
        survivor = next((member for member in found.all if member.controls), None)
        if survivor is None:
            raise DriverFailed("no manager is left that knows the swarm", hint=f"machine cluster rm {cluster.name}")
        progress.phase(f"making a new swarm of {survivor.name}")
        swarm.init(survivor.client, swarm.address(survivor.instance), force=True)
        wait.until(lambda: members.ask(cluster).manager, timeout=SETTLE, what=f"{survivor.name} to lead")
    form(cluster, progress)


def _quorum(cluster: Cluster) -> Members:
    """What the managers say; those that were just started elect a leader first."""

    def settled() -> Members | None:
        found = members.ask(cluster)
        is_new = all(member.membership and member.membership.state == "inactive" for member in found.all)
        return found if found.manager or is_new else None

    with contextlib.suppress(MachineError):
        return wait.until(settled, timeout=ELECTION, what="the managers to elect a leader")
    found = members.ask(cluster)
    found.no_quorum = found.manager is None
    return found
