"""machine init, plan, up, down and schema: the machines of a project, as its machine.yaml describes them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machine.cli import targets
from machine.cli.ask import confirmed
from machine.cli.life import on_each, quiet
from machine.cli.options import Seconds, timeout_option
from machine.errors import CheckFailed, Usage

if TYPE_CHECKING:
    from machine.progress import Progress
    from machine.project.load import Project

FC = Callable[..., Any]
# What `plan --check` ends with when there is something to do.
SOMETHING_TO_DO = 2

file_option = click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="Default: machine.yaml, here or in a folder above.",
)
args_option = click.option(
    "--arg", "args", multiple=True, metavar="NAME=VALUE", help="The value of an argument of the file. May be repeated."
)
names_argument = click.argument("machines", metavar="[NAME]...", nargs=-1)


def _project(file: Path | None, args: tuple[str, ...]) -> Project:
    """The project of the file. From here on relative paths count from its folder."""
    from machine.cli import project_keys
    from machine.project import arguments, load, locate

    found = locate.find(file)
    # Before it is read: folders in it are named from there.
    os.chdir(found.parent)
    return load.load(found, project_keys.current(), arguments.typed(args), os.environ)


@click.command()
@click.option("--from", "source", metavar="NAME", help="Describe this machine.")
def init(source: str | None) -> None:
    """Write a machine.yaml for the project in this folder, and its schema for editors. It asks nothing."""
    from machine.cli import project_init, project_keys
    from machine.instance import load as loaded
    from machine.project import load, locate, schema

    folder = Path.cwd()
    file = folder / locate.FILE
    if file.exists():
        raise CheckFailed(f"{file} is there already", hint="machine plan")
    text = project_init.described(loaded(targets.one(source))) if source else project_init.text(load.default_name(file))
    project_init.write(folder, file, text, schema.dumps(project_keys.current()))
    print(f"Wrote {locate.FILE} and {project_init.SCHEMA}. See what it makes: machine plan")


@click.command()
@file_option
@args_option
@click.option("--check", is_flag=True, help="End with exit code 2 when there is something to do.")
@click.option(
    "--json", "as_json", is_flag=True, help='Print [{"name", "action", "changes", "steps", "fixed", "effects"}].'
)
@names_argument
def plan(machines: tuple[str, ...], file: Path | None, args: tuple[str, ...], check: bool, as_json: bool) -> None:
    """Print what `machine up` would do, and every effect on this computer. Changes nothing.

    \b
    +  is made             ~  is changed, started or provisioned
    !  can't be changed: only machine up --recreate NAME makes it so
    -  isn't in the file: only machine up --prune removes it
    """
    from machine.cli import project_plan
    from machine.project.planning import planned

    found = planned(_project(file, args), machines)
    if as_json:
        print(json.dumps(project_plan.objects(found), indent=4, ensure_ascii=False))
    else:
        print("\n".join(project_plan.lines(found)))
    targets.exit_with(SOMETHING_TO_DO if check and not found.is_done else 0)


@click.command()
@file_option
@args_option
@click.option("--recreate", multiple=True, metavar="NAME", help="Make this machine anew. May be repeated.")
@click.option("--prune", is_flag=True, help="Remove the project's machines that the file has no more.")
@click.option("-y", "yes", is_flag=True, help="Don't ask before machines are removed.")
@click.option("--force", is_flag=True, help="Change settings also where Docker must stop its containers for that.")
@click.option("--offline", is_flag=True, help="Download no images.")
@timeout_option("Seconds to wait until Docker and SSH of a machine answer.")
@quiet
@names_argument
def up(
    machines: tuple[str, ...],
    file: Path | None,
    args: tuple[str, ...],
    recreate: tuple[str, ...],
    prune: bool,
    yes: bool,
    force: bool,
    offline: bool,
    timeout: float,
    quiet: bool,
) -> None:
    """Make, change and start the machines of a project, as its machine.yaml wants them.

    NAMEs choose machines of the file; all if they are left out. What was made by hand is never touched.
    """
    from machine.cli import project_up
    from machine.project.planning import planned

    found = planned(_project(file, args), machines, recreate)
    gone = [todo.name for todo in found.todos if todo.recreate] + [m.name for m in found.surplus if prune]
    if gone and not yes and not _confirmed(gone, "up -y"):
        return
    project_up.up(found, prune=prune, force=force, offline=offline, timeout=timeout, quiet=quiet)


@click.command()
@file_option
@click.option("--rm", "remove", is_flag=True, help="Remove them, with all that is on their disks.")
@click.option("-y", "yes", is_flag=True, help="Don't ask before machines are removed.")
@click.option("--timeout", type=Seconds(), help="Seconds to wait for each. Default: as long as containers need.")
@quiet
@names_argument
def down(
    machines: tuple[str, ...], file: Path | None, remove: bool, yes: bool, timeout: float | None, quiet: bool
) -> None:
    """Shut the machines of a project down, or remove them. What was made by hand is never touched."""
    from machine import lifecycle
    from machine.driver import State
    from machine.instance import load as loaded
    from machine.project import load, locate, members

    found = locate.find(file)
    project = load.name(found)
    there = [machine.name for machine in members.of(project, found)]
    for name in machines:
        if name not in there:
            raise Usage(f'the project "{project}" has no machine "{name}"', hint="machine ls --project")
    wanted = [name for name in there if not machines or name in machines]
    if not wanted and not quiet:
        print(f'The project "{project}" has no machine.', file=sys.stderr)
    if not wanted or (remove and not yes and not _confirmed(wanted, "down --rm -y")):
        return

    def work(name: str, shown: Progress) -> str:
        if remove:
            lifecycle.remove(name, shown)
            return f"Successfully removed {name}"
        instance = loaded(name)
        if not instance.driver.kind.is_ours:
            return f'Machine "{name}" stays as it is: it is a host that was there before.'
        if instance.driver.state() is State.SAVED:
            return f'Machine "{name}" is suspended.'
        stopped = lifecycle.stop(name, shown, timeout=timeout)
        return f'Machine "{name}" was stopped.' if stopped else f'Machine "{name}" is already stopped.'

    on_each(wanted, quiet, work)


def _confirmed(names: list[str], words: str) -> bool:
    print(f"About to remove {', '.join(names)}, with all that is on their disks", file=sys.stderr)
    return confirmed("Are you sure?", hint=f"machine {words}", out=sys.stderr)


@click.command()
def schema() -> None:
    """Print the JSON schema of machine.yaml, for editors."""
    from machine.cli import project_keys
    from machine.project import schema as schemas

    print(schemas.dumps(project_keys.current()), end="")
