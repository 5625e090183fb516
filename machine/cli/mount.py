"""machine mount: add, ls and rm for folders of this host in a machine; and the other way round, by sshfs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machine import store
from machine.cli import targets
from machine.cli.life import on_each, quiet
from machine.cli.tables import formatted, print_columns
from machine.errors import Usage
from machine.progress import Progress

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from machine.goformat import Value

HEADERS = {"Machine": "MACHINE", "Source": "FOLDER HERE", "Target": "PATH IN THE MACHINE", "Access": "ACCESS"}
_unmount = ("-u", "--unmount")
_unmount_text = "Unmount a folder of a machine from PATH or MOUNTPOINT of this host."


class _OfMachine(click.Command):
    """[MACHINE:]PATH [MOUNTPOINT], which is `machine mount` without a verb."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        assert parent
        return super().make_context(parent.info_name, args, parent=parent.parent, **extra)


@click.command(cls=_OfMachine)
@click.option(*_unmount, is_flag=True, help=_unmount_text)
@click.argument("source", metavar="[MACHINE:]PATH")
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
def of_machine(source: str, mountpoint: Path | None, unmount: bool) -> None:
    """Show a folder of a machine in a folder of this host, by sshfs.

    MOUNTPOINT is PATH by default; it is made if it doesn't exist.
    """
    from machine import transfer

    place = transfer.place(source)
    chosen = mountpoint or Path(place.path)
    if unmount:
        transfer.unmount(chosen)
        return
    transfer.mount(transfer.Place(place.path, targets.one(place.machine), place.user), chosen)


class _Mount(click.Group):
    """The first word decides: a verb of this group, or a place, with a colon if its machine is called as a verb."""

    _PLACE = "MACHINE:PATH"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        helps = args and args[0] in ctx.help_option_names
        if args and not helps and (args[0] not in self.commands or set(args) & set(_unmount)):
            args = [self._PLACE, *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return of_machine if ":" in cmd_name else super().get_command(ctx, cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from machine.cli.completion import MachineName

        (source, *_) = [param for param in of_machine.params if isinstance(param, click.Argument)]
        return super().shell_complete(ctx, incomplete) + MachineName(":").shell_complete(ctx, source, incomplete)


@click.group(cls=_Mount, subcommand_metavar="add|ls|rm ARGS... | [MACHINE:]PATH [MOUNTPOINT]")
@click.option(*_unmount, is_flag=True, expose_value=False, help=_unmount_text)
def mount() -> None:
    """Show folders of this host in a machine, or a folder of a machine on this host.

    \b
    machine mount add NAME DIR       this host's DIR is in the machine NAME, and
                                     its containers can use it (qemu, libvirt)
    machine mount NAME:PATH DIR      the machine's PATH is in DIR of this host,
                                     by sshfs
    machine mount -u DIR             ends the latter

    MOUNTPOINT is PATH by default; it is made if it doesn't exist. A place on a machine called add, ls or rm has the
    machine's name and a colon before it, too: ls:/home.
    """


@mount.command()
@quiet
@click.argument("name", metavar="NAME")
@click.argument("folders", metavar="DIR[:PATH][:ro]...", nargs=-1, required=True)
def add(name: str, folders: tuple[str, ...], quiet: bool) -> None:
    """Show folders of this host in a machine, at the same path or at PATH.

    A running machine has them at once, a stopped one at its next start. With :ro it can't change them. Containers get
    them by docker run -v PATH:/src.
    """
    from machine import mounts

    def work(name: str, shown: Progress) -> str:
        return f'Machine "{name}": {mounts.add(name, folders, shown)}'

    on_each([targets.one(name)], quiet, work)


@mount.command()
@click.option("-f", "--force", is_flag=True, help="Continue even if containers use them, which meet errors then.")
@quiet
@click.argument("name", metavar="NAME")
@click.argument("folders", metavar="DIR|PATH...", nargs=-1, required=True)
def rm(name: str, folders: tuple[str, ...], quiet: bool, force: bool) -> None:
    """Show folders of this host in a machine no more; the folders stay as they are.

    DIR is the folder on this host, PATH its place in the machine.
    """
    from machine import mounts

    def work(name: str, shown: Progress) -> str:
        return f'Machine "{name}": {mounts.remove(name, folders, shown, force=force)}'

    on_each([targets.one(name)], quiet, work)


@mount.command("ls")
@click.option(
    "-f", "--format", "form", metavar="TEMPLATE", help="Go template: '{{.Source}}', 'table {{.Source}}\\t{{.Target}}'."
)
@click.option("--json", "as_json", is_flag=True, help='Print [{"machine", "source", "target", "read_only"}].')
@click.argument("name", metavar="[NAME]", required=False)
def list_(name: str | None, form: str | None, as_json: bool) -> None:
    """List the folders of this host that are in a machine, without NAME those of all machines.

    Fields of --format: Machine Source Target Access
    """
    if form is not None and as_json:
        raise Usage("choose one of --format and --json", hint="machine mount ls --json")
    names = [targets.one(name)] if name is not None else targets.readable()
    found = [{"machine": name, **one} for name in names for one in _of(name)]
    if as_json:
        print(json.dumps(found, indent=4, ensure_ascii=False))
        return
    rows = [_fields(**one) for one in found]
    if form is not None:
        formatted(form, HEADERS, _fields("", "", "", False))(rows)
    else:
        print_columns([list(HEADERS.values()), *([str(value) for value in row.values()] for row in rows)])


def _of(name: str) -> list[dict[str, Any]]:
    from machine.cli.show import mounts_of

    return mounts_of(store.load(name))


def _fields(machine: str, source: str, target: str, read_only: bool) -> dict[str, Value]:
    return {"Machine": machine, "Source": source, "Target": target, "Access": "ro" if read_only else "rw"}
