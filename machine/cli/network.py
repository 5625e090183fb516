"""machine network ls, create, rm, inspect: the networks on which machines reach each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from machine.cli.tables import print_columns

if TYPE_CHECKING:
    from machine.network.networks import Network


@click.group()
def network() -> None:
    """Manage the networks on which machines reach each other by name.

    Each machine is on the network `machines`, unless it is made with --network. There, the machine NAME is found as
    NAME and as NAME.machine.internal, from machines and from their containers.
    """


@network.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option("--json", "as_json", is_flag=True, help="Print what inspect prints, for each.")
def list_(quiet: bool, as_json: bool) -> None:
    """List the networks."""
    from machine.network import networks

    found = [networks.load(name) for name in networks.names()]
    if as_json:
        print(json.dumps([_described(one) for one in found], indent=4))
    elif quiet:
        for one in found:
            print(one.name)
    else:
        rows = [[one.name, str(len(one.machines)), str(len(one.connected))] for one in found]
        print_columns([["NETWORK", "MACHINES", "CONNECTED"], *rows])


@network.command()
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
def create(names: tuple[str, ...]) -> None:
    """Make networks, for `machine create --network NETWORK`."""
    from machine.network import networks

    for name in names:
        networks.create(name)
        print(f"Created the network {name}")


@network.command()
@click.argument("names", metavar="NETWORK...", nargs=-1, required=True)
def rm(names: tuple[str, ...]) -> None:
    """Remove networks that no machine is on."""
    from machine.network import networks

    for name in names:
        networks.remove(name)
        print(f"Removed the network {name}")


@network.command()
@click.argument("name", metavar="NETWORK")
def inspect(name: str) -> None:
    """Print a network as JSON: its machines, their addresses there, and whether they are connected now."""
    from machine.network import networks

    print(json.dumps(_described(networks.load(name)), indent=4))


def _described(network: Network) -> dict[str, Any]:
    from machine.network import addresses

    machines = [
        {
            "name": machine.name,
            "driver": machine.driver,
            "address": addresses.of(machine.address),
            "names": [machine.name, f"{machine.name}.{addresses.DOMAIN}"],
            "connected": machine.name in network.connected,
        }
        for machine in network.machines
    ]
    return {"name": network.name, "mtu": addresses.MTU, "machines": machines}
