"""Starting a new machine as a clone of a template: see template.py for what that is."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from machine import files, wait
from machine.docker import daemon_json
from machine.driver import Machine
from machine.errors import DriverFailed, MachineError, WaitTimeout

from . import disk, failures, migration, resume, sizes, template, template_maker
from .argv import BASE_DISK, CLONE_OF, DISK, MONITOR, Memory
from .qmp import Qmp
from .template import Template, TemplateInfo
from .vm import Vm

# Seconds for a QEMU to end that couldn't load a state.
END = 2.0


def lay_disk(vm: Vm) -> None:
    """Make the disk of a new machine over its template's, which is made when it isn't there. Raises MachineError."""
    if "@" in daemon_json.docker_env(vm.machine, daemon_json.proxies(os.environ)):
        raise DriverFailed("the proxy's URL holds a password, and templates must not hold passwords")
    recipe = template_maker.recipe_for(vm)
    origin = template.obtain(vm.folder.store, recipe, lambda folder: template_maker.make(vm, recipe, folder), vm.say)
    (vm.folder / BASE_DISK).unlink(missing_ok=True)
    try:
        os.link(origin.disk, vm.folder / BASE_DISK)
    except OSError:  # a file system without links
        shutil.copyfile(origin.disk, vm.folder / BASE_DISK)
    backing = ["-b", BASE_DISK, "-F", "qcow2"]
    vm.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, vm.folder / DISK, f"{recipe.disk_mib}M"])
    files.write(vm.folder / CLONE_OF, os.fsencode(origin.folder))


def start(vm: Vm) -> None:
    """Start a machine whose disk was laid over a template's, with the template's memory. Raises MachineError.

    Where that fails, the template goes if it is damaged. It stays when QEMU or its guest was merely too slow; that QEMU
    couldn't load it, or that its guest refused, is remembered.
    """
    origin = Template(Path(os.fsdecode((vm.folder / CLONE_OF).read_bytes())))
    about = origin.about()
    try:
        _start(vm, origin, about)
    except (MachineError, OSError) as error:
        _blame(vm, origin, about, error)
        raise
    failures.forget(origin.folder.parent, origin.folder.name)


def _start(vm: Vm, origin: Template, about: TemplateInfo) -> None:
    memory = Memory(
        base_mib=int(about.recipe["base_mib"]),
        file=origin.memory,
        read_only=about.read_only,
        reporting=about.read_only,
    )
    vm.launch(memory, incoming=True)
    with resume.connect(vm.folder, vm.patience) as channel, Qmp(vm.folder / MONITOR) as monitor:
        try:
            migration.load(monitor, origin.state, without_memory=True)
        except DriverFailed as error:
            # A QEMU that can't load a state ends; those since 9.1 can say why.
            if isinstance(error, migration.Refused) or _has_ended(vm):
                raise _NotLoaded(error.message) from error
            raise
        # The disk is the guest's own from here on, and no template's memory fits it any more.
        (vm.folder / CLONE_OF).unlink()
        monitor.execute("cont")
        disk_mib = int(about.recipe["disk_mib"])
        more_mib = _grow(monitor, vm.machine, memory, disk_mib)
        resume.introduce(vm, channel, more_mib, disk_mib)


def abandon(vm: Vm) -> None:
    """What `start` couldn't start is a machine that boots from then on, with an empty disk."""
    vm.end()
    # The template's disk has an identity that others have, too.
    disk.make(vm)
    for name in (CLONE_OF, BASE_DISK):
        (vm.folder / name).unlink(missing_ok=True)


class _NotLoaded(DriverFailed):
    """QEMU took the state, and couldn't load it."""


def _has_ended(vm: Vm) -> bool:
    with contextlib.suppress(WaitTimeout):
        return wait.until(lambda: not vm.process.find(), timeout=END, what="QEMU to end")
    return False


def _blame(vm: Vm, origin: Template, about: TemplateInfo, error: Exception) -> None:
    """Find out whether the template is to blame for a clone that didn't start."""
    remembered = (origin.folder.parent, origin.folder.name, about.recipe)
    try:
        origin.verify()
    except template.Damaged as damage:
        vm.say(f"{damage.message}: the next create makes a new one")
        origin.remove()
    except DriverFailed:
        return
    else:
        if isinstance(error, _NotLoaded):
            failures.count_load(*remembered, f"QEMU couldn't load it: {error.message}")
        elif isinstance(error, resume.GuestRefused):
            failures.count_load(*remembered, error.message)


def _grow(monitor: Qmp, machine: Machine, memory: Memory, disk_mib: int) -> int:
    """Give the clone its memory and disk, which the guest takes while it runs; returns the MiB that were plugged in."""
    more_mib = 0
    if machine.memory_mib > memory.base_mib:
        more_mib = sizes.plug(monitor, machine.memory_mib - memory.base_mib)
    if machine.disk_mib > disk_mib:
        sizes.enlarge(monitor, machine.disk_mib)
    return more_mib
