"""What the program says of each of its verbs: the texts of --help and of `machine help VERB`, as data.

Nothing in it depends on the host: no width of a terminal, no default driver, no home folder, and no driver of another
wheel.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from machine import registry
from machine.cli import VERBS
from machine.cli.command_line import machine
from machine.cli.examples import EXAMPLES

# In the order of their options in `create`. Those of drivers from other wheels are not ours to describe.
DRIVERS = ("qemu", "virtualbox", "libvirt", "lxc", "generic", "none")
EXIT_CODES = (
    ("0", "Everything that was asked for is done."),
    ("1", "An error. What to type next follows its sentence."),
    ("2", "Wrong usage."),
    ("3", "Something is missing or impossible (a tool, an image, room), found before anything was made."),
    ("130", "Interrupted."),
)
# Variables that aren't the other spelling of an option that --help shows. Those of options are added to them.
VARIABLES = {
    "MACHINE_DEBUG": "Show each command that is run, and tracebacks, as --debug does.",
    "MACHINE_IMAGES_URL": "The folder of a web server that has machineos (`images-url` in config.toml).",
    "MACHINE_IMAGES_PATH": "The folder of the cache of images, which several stores may share.",
    "MACHINE_NATIVE_SSH": "Use Python's SSH client (paramiko), also where OpenSSH is installed.",
    "MACHINE_STORAGE_PATH": "The store's folder, in place of ~/.machine.",
    "MACHINE_TLS_CA_CERT": "The certificate of a CA of your own, taken into a store that has none yet.",
    "MACHINE_TLS_CA_KEY": "Its key.",
    "MACHINE_TLS_CLIENT_CERT": "A client certificate of your own, signed by that CA.",
    "MACHINE_TLS_CLIENT_KEY": "Its key.",
}
Entries = list[tuple[str, str]]


@dataclass
class Page:
    """What the program says of one verb, or of a verb's verb: words is "snapshot create", "" for machine itself.

    options: heading -> (option, text). verbs: those of a group.
    """

    words: str
    usage: str
    text: str
    options: dict[str, Entries] = field(default_factory=dict)
    verbs: list[Page] = field(default_factory=list)

    @property
    def command(self) -> str:
        return f"machine {self.words}".rstrip()

    @property
    def summary(self) -> str:
        """The line that `machine --help` shows of a verb."""
        return VERBS[self.words][1]

    @property
    def examples(self) -> tuple[tuple[str, str], ...]:
        return EXAMPLES.get(self.words, ())


def pages() -> list[Page]:
    """A page for every verb, in the order of the alphabet."""
    root = _root()
    found = []
    for verb in sorted(VERBS):
        command = machine.get_command(root, verb)
        assert command is not None
        found.append(_page(command, click.Context(command, info_name=verb, parent=root)))
    return found


def root_page() -> Page:
    context = _root()
    return Page("", _usage(context), _text(machine), _options(context))


def _root() -> click.Context:
    return click.Context(machine, info_name="machine", **machine.context_settings)


def _page(command: click.Command, context: click.Context) -> Page:
    words = context.command_path.removeprefix("machine ")
    page = Page(words, _usage(context), _text(command), _options(context))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            page.verbs.append(_page(child, click.Context(child, info_name=name, parent=context)))
    return page


def _usage(context: click.Context) -> str:
    return " ".join([context.command_path, *filter(None, context.command.collect_usage_pieces(context))])


def _text(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\f")[0].strip()


def _options(context: click.Context) -> dict[str, Entries]:
    found: dict[str, Entries] = {}
    for option in sorted(_described(context), key=_place):
        driver = _driver(option)
        heading = f"Options of the driver {driver}" if driver else getattr(option, "section", "Options")
        found.setdefault(heading, []).append(_entry(option, context))
    return found


def _described(context: click.Context) -> Iterator[click.Option]:
    """The options that a page shows: --help for machine only, a driver's also where --help leaves them out."""
    for parameter in context.command.get_params(context):
        if not isinstance(parameter, click.Option) or ("--help" in parameter.opts and context.parent):
            continue
        driver = _driver(parameter)
        if driver in DRIVERS or not (driver or parameter.hidden):
            yield parameter


def _place(option: click.Option) -> int:
    """Those that every driver has come first."""
    driver = _driver(option)
    return DRIVERS.index(driver) if driver else -1


def _driver(option: click.Option) -> str:
    """Whose option of `create` it is, "" for one that every driver has."""
    owners = [name for name in registry.names() if (option.name or "").startswith(f"{name}_")]
    return max(owners, key=len, default="")


def _entry(option: click.Option, context: click.Context) -> tuple[str, str]:
    hidden, option.hidden = option.hidden, False
    try:
        record = option.get_help_record(context)
    finally:
        option.hidden = hidden
    assert record is not None
    names, text = record[0], record[1].replace("\N{NO-BREAK SPACE}", " ")
    lost = [variable for variable in _variables(option) if variable not in text]
    return names, text + "".join(f"  [env: {variable}]" for variable in lost)


def _variables(option: click.Option) -> list[str]:
    return [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())


def variables() -> Entries:
    """Every environment variable that machine reads for itself, and what it is."""
    root = _root()
    found = dict(VARIABLES)
    for verb in sorted(VERBS):
        command = machine.get_command(root, verb)
        assert command is not None
        for option in _described(click.Context(command, info_name=verb, parent=root)):
            for variable in _variables(option):
                found.setdefault(variable, f"The same as {option.opts[-1]} of machine {verb}.")
    return sorted(found.items())


def paragraphs(text: str) -> Iterator[tuple[bool, str]]:
    """(whether its lines are to stay as they are, text) of each paragraph; click marks such with a backspace."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            yield True, paragraph.removeprefix("\b").strip("\n")
        else:
            yield False, " ".join(paragraph.split())
