"""machine env, config and active: which machine the docker client talks to.

env runs in shell profiles, so it reads machine.json and nothing else: a machine's address never changes, and what is
printed for a stopped machine is right once it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping

import click

from machine import shells, store
from machine.cli import shell_encoding, targets
from machine.cli.options import answer_option, name_argument
from machine.errors import MachineError, Usage, WaitTimeout
from machine.instance import Instance, load
from machine.paths import MachineFolder
from machine.spec import State

# What a shell doesn't leave as it is in what a command printed, or `shells.sh` puts a backslash before.
_SPLIT = re.compile(r'[\s*?\[\]"$`\\]')
TLS = ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
VARIABLES = ("DOCKER_TLS_VERIFY", "DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_MACHINE_NAME")
# docker-compose on Windows then takes C:\x for /c/x in a volume.
CONVERT_PATHS = "COMPOSE_CONVERT_WINDOWS_PATHS"


@click.command()
@click.option("--shell", metavar="SHELL", help=f"{', '.join(shells.SHELLS)}. Default: the one in use.")
@click.option("-u", "--unset", is_flag=True, help="Print the commands that undo it.")
@click.option("--no-proxy", is_flag=True, help="Add the machine's address to NO_PROXY (with -u: take it out).")
@click.option("--json", "as_json", is_flag=True, help='Print {"VARIABLE": "value, or null for one to be unset"}.')
@name_argument
@click.pass_context
def env(ctx: click.Context, name: str | None, shell: str | None, unset: bool, no_proxy: bool, as_json: bool) -> None:
    """Print the commands that set up a shell for the docker client.

    \b
    eval "$(machine env default)"
    """
    if unset and name:
        raise Usage("Expected no machine name when the -u flag is present", hint="machine env -u")
    changes = _undone(no_proxy) if unset else _set_up(targets.one(name), no_proxy)
    if as_json:
        print(json.dumps(changes, indent=4))
        return
    chosen = shells.find(shell or shells.detect(os.environ))
    # What is unset comes first: in an unquoted `eval $(…)` the lines run together, and an export would swallow it.
    lines = [chosen.unset(key) for key, value in changes.items() if value is None]
    lines += [chosen.set(key, value) for key, value in changes.items() if value is not None]
    shell_encoding.say("\n".join([*lines, *chosen.hint(_command_line(ctx))]))


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
    name, url = _active(os.environ.get("DOCKER_HOST", ""), timeout)
    print(json.dumps({"name": name, "url": url}, indent=4) if as_json else name)


def _active(url: str, timeout: float) -> tuple[str, str]:
    for instance in _readable() if url else []:
        if instance.url != url:
            continue
        name = instance.name
        state = instance.state(timeout=timeout)
        if state is None:
            raise WaitTimeout(f'the state of the machine "{name}"', timeout, hint=f"machine status {name}")
        if state is State.RUNNING:
            return name, url
        raise MachineError(
            f'No active host found: DOCKER_HOST is set to the machine "{name}", which is {state.lower()}',
            hint=f"machine start {name}",
        )
    raise MachineError("No active host found", hint="machine ls")


def _readable() -> Iterator[Instance]:
    for name in store.names():
        with contextlib.suppress(MachineError):
            yield load(name)


def _set_up(name: str, no_proxy: bool) -> dict[str, str | None]:
    instance = load(name)
    changes = _variables(instance)
    if sys.platform == "win32":
        changes[CONVERT_PATHS] = "true"
    if no_proxy:
        for key in _proxy_variables(os.environ) or ["NO_PROXY"]:
            changes[key] = _with(os.environ.get(key, ""), instance.address.host)
    return changes


def _variables(instance: Instance) -> dict[str, str | None]:
    tls = instance.machine.tls
    return {
        "DOCKER_TLS_VERIFY": "1" if tls else None,
        "DOCKER_HOST": instance.address.url,
        "DOCKER_CERT_PATH": str(instance.folder.path) if tls else None,
        "DOCKER_MACHINE_NAME": instance.name,
    }


def _undone(no_proxy: bool) -> dict[str, str | None]:
    changes: dict[str, str | None] = dict.fromkeys(VARIABLES)
    if sys.platform == "win32":
        changes[CONVERT_PATHS] = None
    host = _host(os.environ.get("DOCKER_HOST", ""))
    for key in _proxy_variables(os.environ) if no_proxy and host else []:
        value = os.environ[key]
        if host in _items(value):
            changes[key] = ",".join(item for item in _items(value) if item != host) or None
    return changes


def _proxy_variables(environ: Mapping[str, str]) -> list[str]:
    """Both spellings where both are set: curl looks at the lower case one first, docker at the other."""
    spellings = ("NO_PROXY",) if sys.platform == "win32" else ("no_proxy", "NO_PROXY")
    return [key for key in spellings if environ.get(key)]


def _with(value: str, host: str) -> str:
    return value if host in _items(value) else ",".join(filter(None, [value, host]))


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",")]


def _host(url: str) -> str:
    """The host of tcp://HOST:PORT or tcp://[HOST]:PORT."""
    return url.rpartition("://")[2].rpartition(":")[0].strip("[]")


def _command_line(ctx: click.Context) -> list[str]:
    """This command as it was typed, for the hint."""
    words = ["machine"]
    if storage_path := ctx.find_root().params.get("storage_path"):
        words += ["-s", storage_path]
    words.append("env")
    for option, value in (("--shell", ctx.params["shell"]), ("--no-proxy", None), ("--unset", None)):
        if ctx.params[option[2:].replace("-", "_")]:
            words += [option] if value is None else [option, value]
    return [*words, *([ctx.params["name"]] if ctx.params["name"] else [])]
