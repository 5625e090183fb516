"""machine docker-context."""

from __future__ import annotations

import json

import click

from machine.cli import targets
from machine.cli.options import machines_argument
from machine.errors import Usage
from machine.instance import Instance, load


@click.command()
@click.option("--remove", is_flag=True, help="Remove the contexts.")
@click.option("--use", is_flag=True, help="Make it the docker client's default context.")
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "context", "changed"}].')
@machines_argument
def docker_context(machines: tuple[str, ...], remove: bool, use: bool, as_json: bool) -> None:
    """Make a docker context for each machine: docker --context machine-NAME ps.

    `rm` removes it with its machine, and new certificates reach it. `machine create --context` makes one too.
    """
    from machine.docker import contexts

    wanted = targets.several(machines)
    if use and (remove or len(wanted) > 1):
        raise Usage("--use takes one name only, and not --remove", hint=f"machine docker-context --use {wanted[0]}")
    changed = {}
    for name in wanted:
        instance = load(name)
        if remove:
            changed[name] = _removed(instance)
        else:
            changed[name] = contexts.write(instance.docker())
        if use:
            contexts.use(name)
    if as_json:
        found = [{"name": name, "context": contexts.name(name), "changed": changed[name]} for name in wanted]
        print(json.dumps(found, indent=4))
        return
    for name in wanted:
        if remove:
            print(f"{'Removed' if changed[name] else 'There is no'} docker context {contexts.name(name)}")
        else:
            print(f"docker --context {contexts.name(name)}")


def _removed(instance: Instance) -> bool:
    from machine.docker import contexts

    return contexts.remove(instance.name, lambda: instance.address.url)
