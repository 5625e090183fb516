"""machine ssh-config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from machine import probe
from machine.cli import targets
from machine.cli.options import machines_argument
from machine.errors import Usage

if TYPE_CHECKING:
    from machine.paths import Home
    from machine.spec import Address, Machine


@click.command()
@click.option("--install", is_flag=True, help="Include the machines in ~/.ssh/config, those of later too.")
@click.option("--remove", is_flag=True, help="Undo that.")
@click.option(
    "--json", "as_json", is_flag=True, help='Print [{"name", "host", "hostname", "port", "user", "identity_file"}].'
)
@machines_argument
def ssh_config(machines: tuple[str, ...], install: bool, remove: bool, as_json: bool) -> None:
    """Print machines as entries of ssh_config(5): all of them, or those named.

    A machine is the host machine-NAME there, for ssh, scp, rsync, git, and editors that work over SSH.
    """
    from machine.ssh import client_config as config

    if (install or remove) and (machines or as_json or install == remove):
        raise Usage("--install and --remove go alone", hint="machine ssh-config --install")
    if remove:
        done = config.uninstall()
        print(f"{config.user_file()} {'no longer includes' if done else 'does not include'} the machines")
        return
    found = [probe.known(name) for name in (targets.several(machines) if machines else targets.readable())]
    if install:
        for each in found:
            config.write(*each)
        done = config.install()
        print(f"{config.user_file()} includes the machines{'' if done else ' already'}: ssh machine-NAME")
    elif as_json:
        print(json.dumps([_object(*each) for each in found], indent=4))
    else:
        print("\n".join(config.entry(*each) for each in found), end="")


def _object(machine: Machine, home: Home, address: Address) -> dict[str, object]:
    from machine.ssh import client_config as config

    return {
        "name": machine.name,
        "host": config.alias(machine.name),
        "hostname": address.host,
        "port": address.ssh_port,
        "user": machine.ssh_user,
        "identity_file": str(home.ssh_key),
    }
