"""machine ssh-config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from machine.cli import targets
from machine.cli.options import machines_argument
from machine.errors import Usage
from machine.instance import load

if TYPE_CHECKING:
    from machine.ssh.remote import Shell


@click.command()
@click.option("--install", is_flag=True, help="Include all machines, and future ones, in ~/.ssh/config.")
@click.option("--remove", is_flag=True, help="Undo --install.")
@click.option(
    "--json", "as_json", is_flag=True, help='Print [{"name", "host", "hostname", "port", "user", "identity_file"}].'
)
@machines_argument
def ssh_config(machines: tuple[str, ...], install: bool, remove: bool, as_json: bool) -> None:
    """Print machines as entries of ssh_config(5): all of them, or those named.

    The host machine-NAME is then known to ssh, scp, rsync, git, and editors that work over SSH.
    """
    from machine.ssh import client_config as config

    if (install or remove) and (machines or as_json or install == remove):
        raise Usage("--install and --remove take no names and no other option", hint="machine ssh-config --install")
    if remove:
        done = config.uninstall()
        print(f"{config.user_file()} {'no longer includes' if done else 'does not include'} the machines")
        return
    found = [load(name).shell() for name in (targets.several(machines) if machines else targets.readable())]
    if install:
        for shell in found:
            config.write(shell)
        done = config.install()
        print(f"{config.user_file()} includes the machines{'' if done else ' already'}: ssh machine-NAME")
    elif as_json:
        print(json.dumps([_object(shell) for shell in found], indent=4))
    else:
        print("\n".join(config.entry(shell) for shell in found), end="")


def _object(shell: Shell) -> dict[str, object]:
    from machine.ssh import client_config as config

    return {
        "name": shell.folder.name,
        "host": config.alias(shell.folder.name),
        "hostname": shell.address.host,
        "port": shell.address.ssh_port,
        "user": shell.user,
        "identity_file": str(shell.folder.ssh_key),
    }
