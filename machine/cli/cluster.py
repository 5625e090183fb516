"""machine cluster: several machines as one Docker, by Docker's own swarm."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from machine import registry
from machine.cli import driver_options, prompt, targets
from machine.cli.create import Create, drafted, obtained
from machine.cli.create import create as create_one
from machine.cli.options import Number, quiet_option, timeout_option
from machine.cli.tables import print_columns
from machine.errors import DriverFailed, MachineError, Usage, before_anything

if TYPE_CHECKING:
    from machine.cluster.members import Member, Members
    from machine.cluster.record import Cluster
    from machine.progress import Display, Progress

_name = click.argument("name", metavar="NAME")
_timeout = timeout_option("Seconds to wait until Docker and SSH answer, for each machine.")
# What makes no sense for several machines at once.
_NOT_FOR_NODES = {"machines", "context", "as_json"}


@click.group()
def cluster() -> None:
    """Make several machines one Docker: a swarm, with docker stack and docker service.

    Its machines are called NAME-m1, NAME-m2 (managers) and NAME-w1 (workers). All other verbs work on them, too.
    """


@click.command(
    "create",
    cls=Create,
    params=[param for param in create_one.params if param.name not in _NOT_FOR_NODES],
)
@click.option(
    "--managers", type=Number(), default="1", show_default=True, help="So many of the machines lead it: 1, 3, 5."
)
@click.option("--workers", type=Number(), default="0", show_default=True, help="So many more run containers only.")
@_name
def create(name: str, managers: int, workers: int, quiet: bool, timeout: float, **asked: Any) -> None:
    """Make machines, and one swarm of them. Run again after it was interrupted, it goes on.

    The options of `machine create` hold for each machine. With three managers one may be lost, with five two.
    """
    from machine.cluster import life, record
    from machine.progress import Display

    with Display(quiet=quiet) as display:
        with before_anything():
            image = obtained(asked, display) if _boots(asked) else ""
            template = drafted(name, image, asked)
        with record.changing(name):
            made = life.prepared(name, managers, workers, template)
            _make(made, list(made.nodes), display, timeout)
            with display.of(name) as shown:
                life.form(made, shown)
                if lacks := life.lacks(made.template):
                    shown.note(lacks)
    if not quiet:
        print(f'{name} is ready. To point the docker client at it, run: eval "$(machine cluster env {name})"')


cluster.add_command(create)


@cluster.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "driver", "managers": [name], "workers": []}].')
def list_(quiet: bool, as_json: bool) -> None:
    """List the clusters. It asks no machine: see `machine cluster status`."""
    from machine.cluster import record

    found = [record.load(name) for name in record.names()]
    if as_json:
        keys = [
            {"name": one.name, "driver": one.template.driver, "managers": one.managers, "workers": one.workers}
            for one in found
        ]
        print(json.dumps(keys, indent=4))
    elif quiet:
        for one in found:
            print(one.name)
    else:
        rows = [[one.name, one.template.driver, str(len(one.managers)), str(len(one.workers))] for one in found]
        print_columns([["CLUSTER", "DRIVER", "MANAGERS", "WORKERS"], *rows])


@cluster.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "managers", "lost", "spare", "nodes": [...]}.')
@_name
def status(name: str, as_json: bool) -> None:
    """Print the state of each node, and how many managers the cluster can still lose.

    Ends with 1 when a node is lost.
    """
    from machine.cluster import members, record

    found = members.ask(record.load(name))
    rows = [_row(found, member) for member in found.all]
    lost = [row["name"] for row in rows if row["node"] != "ready"]
    if as_json:
        print(json.dumps({"name": name, **_quorum(found), "lost": lost, "nodes": rows}, indent=4))
    else:
        heads = ["NODE", "ROLE", "MACHINE", "SWARM", "AVAILABILITY", "MANAGER"]
        columns = ("name", "role", "machine", "node", "availability", "manager")
        print_columns([heads, *([str(row[column]) for column in columns] for row in rows)])
        print(_in_words(found), file=sys.stderr)
        for member in found.all:
            if member.why:
                print(f"{member.name}: {member.why}", file=sys.stderr)
    targets.exit_with(1 if lost else 0)


@cluster.command()
@click.option("--managers", type=Number(), help="So many managers it gets.")
@click.option("--workers", type=Number(), help="So many workers it gets.")
@_timeout
@quiet_option
@_name
def scale(name: str, managers: int | None, workers: int | None, timeout: float, quiet: bool) -> None:
    """Give a cluster more machines, or fewer. One that goes is drained first: its tasks run elsewhere before."""
    from machine.cluster import life, record
    from machine.progress import Display

    if managers is None and workers is None:
        raise Usage("nothing to change: give --managers or --workers", hint=f"machine cluster scale {name} --workers 3")
    with Display(quiet=quiet) as display, record.changing(name):
        old = record.load(name)
        new = old.sized(
            len(old.managers) if managers is None else managers, len(old.workers) if workers is None else workers
        )
        larger = old.sized(max(len(old.managers), len(new.managers)), max(len(old.workers), len(new.workers)))
        record.save(larger)
        _make(larger, [node for node in larger.nodes if node not in old.nodes], display, timeout)
        with display.of(name) as shown:
            life.form(larger, shown)
            life.shrink(larger, new, shown)
    if not quiet:
        print(f"{name} has {len(new.managers)} managers and {len(new.workers)} workers")


@cluster.command()
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@quiet_option
@_name
def rm(name: str, yes: bool, quiet: bool) -> None:
    """Remove a cluster: all its machines, and what their Docker has."""
    from machine import lifecycle, store
    from machine.cluster import record
    from machine.progress import Display

    found = record.load(name)
    there = [node for node in found.nodes if store.exists(node)]
    if not yes:
        click.confirm(f"Remove {', '.join(there) or 'its record'}?", abort=True, err=True)
    with Display(quiet=quiet) as display, record.changing(name):
        _, code = targets.each(there, lambda node, shown: lifecycle.remove(node, shown, force=True), display)
        if not code:
            record.remove(name)
    targets.exit_with(code)
    if not quiet:
        print(f"Successfully removed {name}")


@cluster.command()
@click.option("--shell", metavar="SHELL", help="As of `machine env`.")
@_name
def env(name: str, shell: str | None) -> None:
    """Print the commands that point the docker client at a manager that answers; stderr says which.

    \b
    eval "$(machine cluster env NAME)"
    """
    from machine.cluster import members, record

    found = members.ask(record.load(name))
    if not found.manager:
        why = found.trouble or f'no manager of the cluster "{name}" answers'
        raise DriverFailed(why, hint=f"machine cluster status {name}")
    print(f"{found.manager.name} answers for {name}", file=sys.stderr)
    typed = ["machine", "cluster", "env", *(["--shell", shell] if shell else []), name]
    prompt.env(found.manager.name, typed=typed, shell=shell)


@cluster.command()
@_timeout
@quiet_option
@_name
def upgrade(name: str, timeout: float, quiet: bool) -> None:
    """Upgrade the machines of a cluster, one after the other: each is drained, renewed, and takes tasks again."""
    from machine.cluster import life, record
    from machine.progress import Display

    with Display(quiet=quiet) as display, record.changing(name), display.of(name) as shown:
        done = life.upgrade(record.load(name), shown, timeout=timeout)
    if not quiet:
        print("\n".join(done))


@cluster.command()
@click.option("--force-new-cluster", is_flag=True, help="Make a new swarm of one manager when most of them are lost.")
@_timeout
@quiet_option
@_name
def repair(name: str, force_new_cluster: bool, timeout: float, quiet: bool) -> None:
    """Bring back what a cluster has lost: machines that are off are started, those that are gone are made anew."""
    from machine.cluster import life, record
    from machine.progress import Display

    with Display(quiet=quiet) as display, record.changing(name):
        found = record.load(name)

        def revive(lost: list[str]) -> None:
            _make(found, lost, display, timeout)

        with display.of(name) as shown:
            life.repair(found, shown, revive, timeout=timeout, force_new_cluster=force_new_cluster)
    if not quiet:
        print(f"{name} is whole")


def _boots(asked: dict[str, Any]) -> bool:
    return registry.load(asked["driver"] or driver_options.default_driver()).kind.is_ours


def _make(made: Cluster, names: list[str], display: Display, timeout: float) -> None:
    """Make or start machines at once. Those that could be made stay: the next try goes on."""
    from machine.cluster import life

    def work(node: str, shown: Progress) -> None:
        life.make(made, node, shown, timeout=timeout)

    _, code = targets.each(names, work, display)
    if code:
        raise MachineError(f"machines of {made.name} are missing; the same command again goes on", hint=_way_back(made))


def _way_back(made: Cluster) -> str:
    return f"machine cluster rm {made.name}"


def _row(found: Members, member: Member) -> dict[str, str]:
    node = found.node(member.name)
    own = member.membership.state if member.membership else "unknown"
    return {
        "name": member.name,
        "role": member.role,
        "machine": member.state or "gone",
        "node": node.status if node else ("unknown" if own == "active" else own),
        "availability": node.availability if node else "",
        "manager": ("leader" if node.leader else node.reachability) if node else "",
    }


def _quorum(found: Members) -> dict[str, int]:
    """managers: so many there are; spare: so many of them can be lost yet, less than 0 without a quorum."""
    managers = [member for member in found.all if member.role == "manager"]
    if found.nodes is None:
        return {"managers": len(managers), "spare": -1}
    known = [node for node in found.nodes if node.reachability]
    answering = [node for node in known if node.reachability == "reachable"]
    return {"managers": len(managers), "spare": len(answering) - (len(known) // 2 + 1)}


def _in_words(found: Members) -> str:
    quorum = _quorum(found)
    if found.nodes is None:
        return f"no manager answers for the cluster: {found.trouble or 'none of them says anything'}"
    spare = quorum["spare"]
    if spare < 0:
        return "it has no quorum: too many of its managers are lost"
    more = {0: "none of its managers may be lost", 1: "one more of its managers may be lost"}
    return f"it has a quorum; {more.get(spare, f'{spare} more of its managers may be lost')}"
