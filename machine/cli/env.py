"""machine env, config and active: which machine the docker client talks to."""

from __future__ import annotations

import json
import re
import sys

import click

from machine import shells
from machine.cli import prompt, shell_encoding, targets
from machine.cli.options import answer_option, name_argument
from machine.errors import MachineError, Usage
from machine.instance import load
from machine.paths import MachineFolder

# What a shell doesn't leave as it is in what a command printed, or `shells.sh` puts a backslash before.
_SPLIT = re.compile(r'[\s*?\[\]"$`\\]')


@click.command()
@click.option("--shell", metavar="SHELL", help=f"{', '.join(shells.SHELLS)}. Default: the one in use.")
@click.option("-u", "--unset", is_flag=True, help="Print the commands that undo it.")
@click.option("--project", is_flag=True, help="The machine of the project in this folder, if it has one machine.")
@click.option("--no-proxy", is_flag=True, help="Add the machine's address to NO_PROXY (with -u: take it out).")
@click.option("--json", "as_json", is_flag=True, help='Print {"VARIABLE": "value, or null for one to be unset"}.')
@name_argument
@click.pass_context
def env(
    ctx: click.Context,
    name: str | None,
    shell: str | None,
    unset: bool,
    project: bool,
    no_proxy: bool,
    as_json: bool,
) -> None:
    """Print the commands that set up a shell for the docker client.

    \b
    eval "$(machine env default)"
    """
    if unset and name:
        raise Usage("Expected no machine name when the -u flag is present", hint="machine env -u")
    if project and (unset or name):
        raise Usage("--project goes with neither NAME nor -u", hint="machine env --project")
    if project:
        name = _of_project()
    typed = _command_line(ctx)
    prompt.env(name, typed=typed, shell=shell, unset=unset, no_proxy=no_proxy, as_json=as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"host", "tlsverify", "tlscacert", "tlscert", "tlskey"}.')
@name_argument
def config(name: str | None, as_json: bool) -> None:
    """Print the options for a docker client.

    \b
    docker $(machine config default) ps
    """
    instance = load(targets.one(name))
    url, tls = instance.address.url, instance.machine.tls
    chosen = instance.folder if as_json or not tls else _unsplit(instance.folder)
    files = {"tlscacert": chosen.ca, "tlscert": chosen.cert, "tlskey": chosen.key} if tls else {}
    if as_json:
        found = {"host": url, "tlsverify": tls, **{key: str(path) for key, path in files.items()}}
        print(json.dumps(found, indent=4))
        return
    # The docker client takes these quotes off by itself; a shell's eval does so too.
    options = [f"--{key}={shells.sh(str(path))}" for key, path in files.items()]
    shell_encoding.say("\n".join([*(["--tlsverify"] if tls else []), *options, f"-H={url}"]))


def _unsplit(folder: MachineFolder) -> MachineFolder:
    """The machine's folder by a path that the shell leaves whole in `docker $(machine config)`.

    No quotes help there: they are taken for part of the path, which is split at blanks. PowerShell splits at newlines.
    """
    if sys.platform == "win32" or not _SPLIT.search(str(folder.path)):
        return folder
    from machine import links
    from machine.cli.report import warn

    try:
        return MachineFolder(links.way(folder.path))
    except MachineError as error:
        text = f'a shell splits the path "{folder.path}", and there can be no other to it: {error.message}'
        warn(text, f'eval "$(machine env {folder.name})"')
        return folder


@click.command()
@answer_option
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "url"}.')
@click.argument("extra", nargs=-1, metavar="")
def active(timeout: float, as_json: bool, extra: tuple[str, ...]) -> None:
    """Print the machine that the docker client is set to ($DOCKER_HOST), if it runs."""
    if extra:
        raise Usage("Too many arguments given", hint="machine active")
    prompt.active(timeout, as_json=as_json)


def _of_project() -> str:
    """The only machine of the project in this folder, or in one above."""
    from machine.project import locate, members

    file = locate.find(None)
    found = [machine.name for machine in members.of_file(file)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Usage(f"{file} has {len(found)} machines: {', '.join(found)}", hint=f"machine env {found[0]}")
    raise MachineError(f"no machine was made from {file}", hint="machine up")


def _command_line(ctx: click.Context) -> list[str]:
    """This command as it was typed, for the hint."""
    words = ["machine"]
    if storage_path := ctx.find_root().params.get("storage_path"):
        words += ["-s", storage_path]
    words.append("env")
    others = (("--no-proxy", None), ("--unset", None), ("--project", None))
    for option, value in (("--shell", ctx.params["shell"]), *others):
        if ctx.params[option[2:].replace("-", "_")]:
            words += [option] if value is None else [option, value]
    return [*words, *([ctx.params["name"]] if ctx.params["name"] else [])]
