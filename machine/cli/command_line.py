"""click's command line: the group, whose verbs are imported only when they are used."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from machine import __version__
from machine.cli.report import json_asked, typed, warn
from machine.cli.verbs import COMPLETING, GROUPS, VERBS
from machine.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.decorators import FC
    from click.shell_completion import CompletionItem

    from machine.driver import Machine
    from machine.paths import MachineFolder

# These are instant and read one machine, or none: shells' profiles and prompts call them, and nothing is removed there.
UNSWEPT = {"active", "completion", "config", "env", "help", "ip", "url", "version"}


class Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _ = VERBS[cmd_name]
        command = getattr(import_module(f"machine.cli.{module}"), _function(cmd_name))
        assert isinstance(command, click.Command)
        if COMPLETING in os.environ:
            from machine.cli.completion import tell_types

            tell_types(cmd_name, command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=text) for verb, (_, text) in VERBS.items() if verb.startswith(incomplete)]
        return verbs + (click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else [])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=VERBS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))  # one for all groups
        for group, verbs in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(f"{verb:<{width}}", text) for verb, (_, text) in verbs.items()])


def _as_variable(option: str, variable: str, *, is_flag: bool = False) -> Callable[[FC], FC]:
    """An option of docker-machine that sets a variable. With variable="" it is accepted for its scripts, and
    ignored."""

    def keep(ctx: click.Context, param: click.Parameter, value: str | bool | None) -> None:
        if value and variable:
            os.environ[variable] = str(value)

    return click.option(option, is_flag=is_flag, hidden=True, expose_value=False, callback=keep)


@click.group(
    cls=Verbs,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="machine help VERB tells more, with examples.",
)
@click.version_option(__version__, "-v", "--version", message="machine version %(version)s")
@click.option(
    "-D", "--debug", is_flag=True, help="Show each command that is run, and tracebacks.  [env: MACHINE_DEBUG]"
)
@click.option("-s", "--storage-path", metavar="FOLDER", help="The store's folder.  [env: MACHINE_STORAGE_PATH]")
@_as_variable("--tls-ca-cert", "MACHINE_TLS_CA_CERT")
@_as_variable("--tls-ca-key", "MACHINE_TLS_CA_KEY")
@_as_variable("--tls-client-cert", "MACHINE_TLS_CLIENT_CERT")
@_as_variable("--tls-client-key", "MACHINE_TLS_CLIENT_KEY")
@_as_variable("--native-ssh", "MACHINE_NATIVE_SSH", is_flag=True)
@_as_variable("--github-api-token", "")
@_as_variable("--bugsnag-api-token", "")
@click.pass_context
def machine(ctx: click.Context, debug: bool, storage_path: str | None) -> None:
    """A Docker host from one command.

    \b
    machine create default
    eval "$(machine env default)"
    docker run ...
    """
    if storage_path:
        os.environ["MACHINE_STORAGE_PATH"] = storage_path
    if debug:
        os.environ["MACHINE_DEBUG"] = "1"
        from machine import run

        run.debug = True
    if ctx.invoked_subcommand not in UNSWEPT and not typed("--help", "-h"):
        _warn_root()
        with contextlib.suppress(OSError):  # a store that can't be read: what needs it says so
            _sweep()


def run() -> int:
    """Do what the command line asks, and return its exit code.

    Raises MachineError, also for click's own errors; KeyboardInterrupt, and whatever a verb raises.
    """
    if COMPLETING in os.environ:
        import_module("machine.cli.completion")  # it adds PowerShell
    try:
        return machine.main(prog_name="machine", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        if error.ctx is None:
            raise
        from machine.cli import usage

        # Nothing but a group was typed: no error, as with docker.
        print(error.ctx.get_help() if error.ctx.parent else usage.first_steps())
        return 0
    except click.ClickException as error:
        from machine.cli import usage

        raise usage.explained(error) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit:
        # click's own end when nobody reads us; it never ends us otherwise.
        if "PacifyFlush" not in type(sys.stdout).__name__:
            raise
        return 0


def _function(verb: str) -> str:
    return verb.replace("-", "_") + ("_" if verb in {"import", "set"} else "")


def _warn_root() -> None:
    from machine import ownership

    if warning := ownership.of_somebody_else():
        hint = "leave sudo out, or give root a store of its own: MACHINE_STORAGE_PATH=/root/.machine"
        warn(warning, hint, as_json=json_asked())


def _sweep() -> None:
    """Remove what a killed create left behind. If there is nothing, as usual, this costs one look at each folder."""
    from machine import store

    for name, error in store.sweep(_undo):
        if error:
            text = f"the leftovers of the machine {name} can't be removed: {error.message}"
            warn(text, f"machine rm -f {name}", as_json=json_asked())
        elif not typed("--json", "--quiet", "-q"):
            print(f'Removed what an interrupted "machine create {name}" had left behind.', file=sys.stderr)
    if store.has_unfinished_templates():
        _sweep_templates()


def _sweep_templates() -> None:
    from machine import paths, registry

    for driver in registry.names():
        with contextlib.suppress(MachineError):  # one that can't be loaded has no work in progress
            registry.load(driver).sweep_templates(paths.store())


def _undo(left: Machine, folder: MachineFolder) -> None:
    from machine import lifecycle
    from machine.instance import Instance

    lifecycle.undo(Instance(left, folder))
