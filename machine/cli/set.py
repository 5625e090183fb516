"""machine set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from machine.cli import targets
from machine.cli.life import on_each, quiet
from machine.cli.options import Number, Size, machines_argument
from machine.errors import Usage
from machine.progress import Progress
from machine.settings import Edit, Edits

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)
# The lists of a machine's settings, by the option that adds to them; with -rm behind it, one that takes away.
LISTS = {
    "options": ("--engine-opt", "KEY[=VALUE]", "An option of dockerd."),
    "labels": ("--engine-label", "KEY=VALUE", "A label of the daemon."),
    "environment": (
        "--engine-env",
        "KEY=VALUE",
        "A variable of the daemon's environment: HTTP_PROXY=http://proxy:3128.",
    ),
    "registry_mirrors": ("--engine-registry-mirror", "URL", "A mirror of Docker's registry."),
    "insecure_registries": ("--engine-insecure-registry", "HOST:PORT", "A registry to use without TLS."),
    "hosts": ("--host", "NAME=IP", "A host name and its address, for the machine's /etc/hosts."),
    "sysctls": ("--sysctl", "KEY=VALUE", "A setting of the machine's kernel."),
}


def _lists(function: FC) -> FC:
    """For each list an option that adds, and one that removes."""
    for name, (flag, metavar, text) in reversed(LISTS.items()):
        gone = metavar.partition("=")[0].partition("[")[0]
        remove = click.option(
            f"{flag}-rm", f"{name}_rm", multiple=True, metavar=gone, help=f"Remove one ({flag}). May be repeated."
        )
        add = click.option(flag, name, multiple=True, metavar=metavar, help=f"{text} May be repeated.")
        function = add(remove(function))
    return function


@click.command("set")
@click.option("-m", "--memory", "memory_mib", type=Size(), help="Size of the memory: MiB, or 8G.")
@click.option("--cpus", type=Number(), help="Number of virtual processors.")
@click.option("--disk", "disk_mib", type=Size(), help="Size of the disk: MiB, or 60G. It can only grow.")
@_lists
@click.option("--engine-storage-driver", metavar="NAME", help="The same as --engine-opt storage-driver=NAME.")
@click.option(
    "--host-network-ports/--no-host-network-ports",
    default=None,
    help="Whether to forward the ports of containers with --network host.",
)
@click.option(
    "--binfmt",
    metavar="on|off|FILE",
    help="Whether containers of the other processor run (docker run --platform), by this host's interpreter or FILE.",
)
@click.option("-f", "--force", is_flag=True, help="Continue even if Docker must stop its containers.")
@quiet
@machines_argument
def set_(
    machines: tuple[str, ...],
    quiet: bool,
    force: bool,
    host_network_ports: bool | None,
    binfmt: str | None,
    **given: Any,
) -> None:
    """Change the sizes and settings of machines: at once if possible, else at their next start.

    An option adds an item, or replaces the item with the same KEY. The option with -rm removes the item with that KEY.
    Docker reloads its settings if it can. Else it is restarted, and containers keep running. If they can't, nothing is
    changed without --force. If Docker refuses a setting, the old settings come back.
    """
    sizes = {name: given[name] for name in ("memory_mib", "cpus", "disk_mib") if given[name] is not None}
    edits = _edits(given)
    if not sizes and not edits and host_network_ports is None and not binfmt:
        raise Usage(
            "nothing to change: give --memory, --cpus, --disk or a setting", hint="machine set --memory 4G default"
        )

    def work(name: str, shown: Progress) -> str:
        done = [
            resized(name, sizes, shown) if sizes else "",
            adjusted(name, edits, shown, force) if edits else "",
            forwarded(name, host_network_ports) if host_network_ports is not None else "",
            interpreted(name, binfmt, shown) if binfmt else "",
        ]
        return (
            f'Machine "{name}": {" ".join(filter(None, done))}'
            if any(done)
            else f'Machine "{name}" already has these settings.'
        )

    on_each(targets.several(machines), quiet, work)


def _edits(given: dict[str, Any]) -> Edits:
    found = {name: Edit(given[name], given[f"{name}_rm"]) for name in LISTS}
    if storage := given["engine_storage_driver"]:
        options = found["options"]
        found["options"] = Edit((*options.add, f"storage-driver={storage}"), options.remove)
    return Edits(**found)


def resized(name: str, sizes: dict[str, int], shown: Progress) -> str:
    """What came of new sizes, in a sentence or two; "" when the machine has them."""
    from machine import resize

    now, later = resize.resize(name, shown, **sizes)
    done = f"{' and '.join(now).capitalize()} changed now." if now else ""
    waits = f"{' and '.join(later).capitalize()} will change at the next start: machine restart {name}" if later else ""
    return " ".join(filter(None, [done, waits]))


def adjusted(name: str, edits: Edits, shown: Progress, force: bool) -> str:
    """What came of new settings."""
    from machine.adjust import adjust

    return adjust(name, edits, shown, force=force)


def forwarded(name: str, yes: bool) -> str:
    """What came of forwarding the ports of --network host, or no longer."""
    from machine import resize

    if not resize.forward_host_network(name, yes):
        return ""
    return f"Ports of --network host are {'forwarded' if yes else 'left out'} within a minute."


def interpreted(name: str, wanted: str, shown: Progress) -> str:
    """What came of running containers of the other processor, or no longer."""
    from machine.guest import binfmt

    return binfmt.switch(name, wanted, shown)
