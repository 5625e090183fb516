"""What this host lacks for its first machine, and the commands that bring it: `machine setup`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from machine import packages
from machine.errors import MachineError, NoSuchImage, ToolMissing
from machine.images import machineos, release
from machine.instance import nobody
from machine.progress import Silent
from machine.run import which

_BUILD = ("machine", "iso", "build")


@dataclass(frozen=True)
class Lack:
    """what is missing; commands: what brings it, in this order, [] where the user must; hint: then, what to do.

    needed: whether no machine can be made without it.
    """

    what: str
    commands: tuple[tuple[str, ...], ...] = ()
    hint: str = ""
    needed: bool = True


def lacks(driver: str) -> Iterator[Lack]:
    """What this host lacks for machines of that driver. Raises Usage for a driver that doesn't exist."""
    yield from _of_driver(driver)
    yield from _image(driver)
    for tool, why in (("docker", "the docker client"), ("ssh", "OpenSSH; paramiko takes its place in part")):
        if not which(tool):
            yield _tool(tool, why, needed=False)


def _of_driver(driver: str) -> Iterator[Lack]:
    try:
        nobody(driver).driver.check()
    except ToolMissing as error:
        # A tool at a time: the others are found when it is there.
        yield _tool(error.tool, f"{error.tool}, for the driver {driver}", hint=error.hint)
    except MachineError as error:
        yield Lack(error.message, hint=error.hint)


def _tool(tool: str, what: str, *, hint: str = "", needed: bool = True) -> Lack:
    command = packages.command(tool)
    return Lack(what, (tuple(command),) if command else (), "" if command else hint or packages.hint(tool), needed)


def _image(driver: str) -> Iterator[Lack]:
    if not nobody(driver).driver.kind.is_ours:
        return
    try:
        release.obtain(Silent(), offline=True)
    except NoSuchImage as error:
        what = "machineos, the operating system of the machines"
        if release.published().is_known:
            yield Lack(what, (("machine", "image", "pull", machineos.NAME),))
        elif which("mmdebstrap"):
            yield Lack(what, (_BUILD,))
        elif tools := packages.command("mmdebstrap"):
            yield Lack(what, (tuple(tools), _BUILD))
        elif nobody(driver).driver.cloud_images:
            yield Lack(what, ((*_BUILD, "--in-machine", "--driver", driver),))
        else:
            yield Lack(what, hint=error.details)
