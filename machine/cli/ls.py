"""machine ls: asks all machines at the same time, each within the timeout, so that a dead one delays no other."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from machine import probe, store
from machine.cli.options import answer_option
from machine.cli.report import explained
from machine.cli.tables import formatted, print_columns, print_rows, widths
from machine.docker import liveness
from machine.docker_machine import inspect_json
from machine.errors import MachineError, Usage
from machine.guest import console, oom
from machine.instance import Instance
from machine.reasons import reason
from machine.resources import human
from machine.spec import State
from machine.tls import certs

if TYPE_CHECKING:
    from machine.goformat import Value
    from machine.spec import Machine

COLUMNS = ("Name", "Active", "DriverName", "State", "URL", "Memory", "CPUs", "DockerVersion", "Error")
HEADERS = {
    "Name": "NAME",
    "Active": "ACTIVE",
    "ActiveHost": "ACTIVE_HOST",
    "ActiveSwarm": "ACTIVE_SWARM",
    "Arch": "ARCH",
    "CPUs": "CPUS",
    "DockerVersion": "DOCKER",
    "DriverName": "DRIVER",
    "EngineOptions": "ENGINE_OPTIONS",
    "Error": "ERRORS",
    "Memory": "MEMORY",
    "ResponseTime": "RESPONSE",
    "State": "STATE",
    "Swarm": "SWARM",
    "SwarmOptions": "SWARM_OPTIONS",
    "URL": "URL",
}
# Docker is given a little less than the rest of the time: its machine is then shown as running, with the reason.
MARGIN = 0.9
# Seconds. On a terminal, the lines of machines that answer meanwhile come together and in order, later ones at once.
TOGETHER = 0.3


@dataclass
class Row:
    name: str
    machine: Machine | None = None
    state: str = ""
    url: str = ""
    architecture: str = ""
    docker: str = ""
    error: str = ""
    warning: str = ""
    seconds: float = 0.0

    @property
    def active(self) -> bool:
        return bool(self.url) and self.url == os.environ.get("DOCKER_HOST")


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print names only.")
@click.option(
    "--filter", "filters", metavar="KEY=VALUE", multiple=True, help="driver, state, name (regexp), label or project."
)
@click.option("--project", is_flag=True, help="List the machines of the project in this folder.")
@click.option(
    "-f", "--format", "form", metavar="TEMPLATE", help="Go template: '{{.Name}}', 'table {{.Name}}\\t{{.URL}}'."
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print [{"name", "active", "driver", "state", "url", "memory_mib", "cpus", "arch", "docker", '
    '"error", "warning"}].',
)
@click.option("--fresh", is_flag=True, help="Ask each Docker. Otherwise its answer of the last minute counts.")
@answer_option
def ls(
    quiet: bool,
    filters: tuple[str, ...],
    project: bool,
    form: str | None,
    as_json: bool,
    fresh: bool,
    timeout: float,
) -> None:
    """List the machines.

    \b
    Fields of --format: Name Active ActiveHost DriverName State URL Memory CPUs
    Arch DockerVersion Error ResponseTime EngineOptions
    """
    if sum((quiet, form is not None, as_json)) > 1:
        raise Usage("choose one of --quiet, --format and --json", hint="machine ls --json")
    wanted = _filters(filters)
    printer = _quiet if quiet else _json if as_json else _formatted(form) if form is not None else _table
    grows = printer is _table and bool(sys.stdout) and sys.stdout.isatty()
    names = _of_project() if project else store.names()
    rows = [row for row in map(_row, names) if _matches(row, wanted, known=True)]
    groups: Iterable[list[Row]] = [rows]
    if not quiet or "state" in wanted:
        first = TOGETHER if grows else float("inf")
        groups = _probed(rows, timeout, docker=not quiet, fresh=fresh, first=first)
    # One that was removed meanwhile has nothing but errors to tell.
    there = ([row for row in group if not row.error or store.exists(row.name)] for group in groups)
    answers = ([row for row in group if _matches(row, wanted, known=False)] for group in there)
    if grows:
        _grow(rows, answers)
    else:
        printer([row for group in answers for row in group])
    if not rows and not wanted and sys.stderr.isatty():
        print("There is no machine yet: machine create default", file=sys.stderr)


def _of_project() -> list[str]:
    from machine.project import locate, members

    return [machine.name for machine in members.of_file(locate.find(None))]


def _row(name: str) -> Row:
    try:
        machine = store.load(name)
        return Row(name, machine, url=machine.address.url if machine.address else "")
    except MachineError as error:
        return Row(name, state=State.ERROR, error=error.message)


def _probed(rows: list[Row], timeout: float, *, docker: bool, fresh: bool, first: float) -> Iterator[list[Row]]:
    """The rows that have been filled, in groups as `probe.as_they_end` yields them."""
    from machine import registry

    for name in {row.machine.driver for row in rows if row.machine}:
        # Once, and not in each thread; one that can't be loaded is reported with its machine.
        with contextlib.suppress(MachineError):
            registry.load(name)

    def job(row: Row) -> Callable[[], None]:
        return lambda: _fill(row, time.monotonic() + timeout, docker=docker, fresh=fresh)

    for ended in probe.as_they_end([job(row) for row in rows], timeout=timeout, first=first):
        # The thread of a late one still writes to its row: a copy is shown.
        yield [rows[n] if ended[n] else _late(dataclasses.replace(rows[n]), timeout) for n in sorted(ended)]


def _late(row: Row, timeout: float) -> Row:
    if row.state == State.RUNNING and not row.error:
        from machine.docker.api import Silent

        row.error = Silent(timeout).message
    row.state = row.state or "Timeout"
    row.error = row.error or f"no answer within {timeout:g} s"
    return row


def _fill(row: Row, deadline: float, *, docker: bool, fresh: bool) -> None:
    if row.machine is None:
        return
    began = time.monotonic()
    try:
        folder = store.folder_of(row.name)
        if row.machine.tls and (expiry := certs.expires_soon(folder)):
            row.warning = f"{expiry}: {expiry.command}"
        instance = Instance(row.machine, folder)
        row.architecture = instance.architecture
        row.state = instance.driver.state()
        if row.state is State.RUNNING:
            row.warning = row.warning or oom.warning(folder)
        with contextlib.suppress(MachineError):
            row.url = instance.address.url
        if docker and row.state is State.RUNNING:
            left = max(0.1, (deadline - time.monotonic()) * MARGIN)
            row.docker = ("" if fresh else liveness.version(folder)) or _docker_version(instance, left)
    except MachineError as error:
        row.error = error.message
    except OSError as error:
        row.error = explained(error).message
    except Exception as error:  # a driver of somebody else: its fault must not hide the other machines
        row.error = f"the driver {row.machine.driver} has a fault: {reason(error)}"
    row.state = row.state or State.ERROR
    row.seconds = time.monotonic() - began


def _docker_version(instance: Instance, timeout: float) -> str:
    from machine.docker import api

    try:
        return instance.docker(timeout).version()
    except api.Silent as error:  # its URL stands in the same row
        raise api.Silent(error.seconds) from error


def _filters(texts: Sequence[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.lower()
        if not equals:
            raise Usage(f'Unsupported filter syntax: "{text}"', hint="machine ls --filter driver=qemu")
        if key not in {"driver", "label", "name", "project", "state"}:
            raise Usage(f"Unsupported filter key '{key}'", hint="the keys are driver, state, name, label and project")
        if key == "name":
            _check_pattern(value)
        wanted.setdefault(key, []).append(value)
    return wanted


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise Usage(f'invalid regular expression "{pattern}": {error}', hint="machine ls --filter name=^web") from error


def _matches(row: Row, wanted: dict[str, list[str]], *, known: bool) -> bool:
    """Whether the row passes; known: by what is known before the machine is asked, that is all but its state."""
    tests = {
        "driver": lambda value: row.machine is not None and row.machine.driver.lower() == value.lower(),
        "label": lambda value: row.machine is not None and _has_label(row.machine, value),
        "project": lambda value: row.machine is not None and row.machine.project == value,
        "name": lambda value: re.search(value, row.name) is not None,
        "state": lambda value: row.state.lower() == value.lower(),
    }
    return all(any(map(tests[key], values)) for key, values in wanted.items() if known != (key == "state"))


def _has_label(machine: Machine, wanted: str) -> bool:
    """wanted is KEY or KEY=VALUE; case doesn't matter in the value."""
    key, equals, value = wanted.partition("=")
    labels = [label.partition("=") for label in (*machine.engine.labels, f"provider={machine.driver}")]
    return any(there == key and (not equals or text.lower() == value.lower()) for there, _, text in labels)


def _quiet(rows: list[Row]) -> None:
    for row in rows:
        print(row.name)


def _json(rows: list[Row]) -> None:
    print(json.dumps([_object(row) for row in rows], indent=4, ensure_ascii=False))


def _object(row: Row) -> dict[str, object]:
    machine = row.machine
    return {
        "name": row.name,
        "active": row.active,
        "driver": machine.driver if machine else None,
        "state": row.state,
        "url": row.url or None,
        "memory_mib": machine.memory_mib or None if machine else None,
        "cpus": machine.cpus or None if machine else None,
        "arch": row.architecture or None,
        "docker": row.docker or None,
        "error": row.error or None,
        "warning": row.warning or None,
    }


def _table(rows: list[Row]) -> None:
    print_columns([_headers(), *_cells(rows)])


def _grow(rows: list[Row], groups: Iterable[list[Row]]) -> None:
    """The same for a terminal, where a slow machine keeps nobody from reading of the others: each group as it comes."""
    expected = [dataclasses.replace(row, state=row.state or State.STARTING) for row in rows]
    wide = widths([_headers(), *_cells(expected)])
    print_rows([_headers()], wide)
    for group in groups:
        print_rows(_cells(group), wide)
        sys.stdout.flush()


def _headers() -> list[str]:
    return [HEADERS[column] for column in COLUMNS]


def _cells(rows: list[Row]) -> list[list[str]]:
    return [[str(_fields(row)[column]) for column in COLUMNS] for row in rows]


def _formatted(form: str) -> Callable[[list[Row]], None]:
    show = formatted(form, HEADERS, _fields(Row("")))
    return lambda rows: show(map(_fields, rows))


def _fields(row: Row) -> dict[str, Value]:
    """What --format can name, as docker-machine calls it."""
    machine = row.machine
    return {
        "Name": row.name,
        "Active": "*" if row.active else "-",
        "ActiveHost": row.active,
        "ActiveSwarm": False,
        "DriverName": machine.driver if machine else "not found",
        "State": row.state,
        "URL": row.url,
        "SwarmOptions": "",
        "Swarm": "",
        "EngineOptions": inspect_json.engine_options(machine),
        "Error": " ".join(console.clean(row.error or row.warning).split()),
        "DockerVersion": f"v{row.docker}" if row.docker else "Unknown",
        "ResponseTime": f"{row.seconds * 1000:.1f}ms" if row.seconds < 1 else f"{row.seconds:.3f}s",
        # Of a host that was there before nothing is known.
        "Memory": human(machine.memory_mib) if machine and machine.memory_mib else "",
        "CPUs": machine.cpus if machine and machine.cpus else "",
        "Arch": row.architecture,
    }
