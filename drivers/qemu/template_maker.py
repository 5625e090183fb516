"""Making a template: a machine without an identity boots, and its memory, state and disk are kept. See template.py."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
from pathlib import Path

from machine import store, wait
from machine.docker import daemon_json, refusal
from machine.driver import Machine
from machine.errors import DriverFailed, WaitTimeout
from machine.guest import credentials
from machine.paths import MachineFolder
from machine.tls import authorities

from . import disk, migration, resume, template
from .argv import AGENT, DISK, MONITOR, Memory
from .qmp import GuestAgent, Qmp
from .template import Recipe
from .vm import Vm

# A template has this much memory, and its clones get the rest plugged in. Docker needs some 120 MiB to come up.
BASE_MIB = 512
# What is left to the guest of a template when its free memory is emptied.
SPARE_MIB = 48
# A clone's disk can grow, not shrink: the template's is of the default size, or smaller when a smaller is asked for.
DISK_MIB = 20 * 1024
# Seconds.
BOOT = 300.0
PREPARE = 120.0
EMPTY = 15.0

# Up to QEMU 8.1, giving free pages back to the host punches holes into the file that a clone's memory is mapped from,
# also when it is mapped privately: into the template that others use. Since 8.2 it can be opened for reading only.
READ_ONLY_SINCE = (8, 2)


def recipe_for(vm: Vm) -> Recipe:
    """What a template must be made of for this machine to be cloned from it. Raises ToolMissing."""
    machine, host = vm.machine, vm.host()
    return Recipe(
        image=machine.image,
        qemu=f"{host.binary} {template.qemu_mark(Path(host.binary))}",
        accelerator=host.accelerator,
        cpu=host.cpu if host.accelerator == "tcg" else f"{host.cpu} {_processor()}",
        cpus=machine.cpus,
        base_mib=min(BASE_MIB, machine.memory_mib) if host.plugs_memory else machine.memory_mib,
        disk_mib=min(DISK_MIB, machine.disk_mib),
        engine=_engine(machine),
    )


def _engine(machine: Machine) -> str:
    """A digest of all that dockerd is started with: a clone's runs already and isn't started again."""
    proxies = daemon_json.proxies(os.environ)
    proxied = daemon_json.docker_env(machine, proxies)
    settings = [daemon_json.content(machine), proxied, daemon_json.environment(proxies)]
    trusted = authorities.extra()
    return hashlib.sha256(json.dumps([*settings, machine.tls, trusted]).encode()).hexdigest()[:16]


def _processor() -> str:
    """The model of the host's processor: another one may lack what the guest found when it booted."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")


def make(vm: Vm, recipe: Recipe, template_folder: Path) -> bool:
    """Boot a machine without an identity and put its memory, state and disk into template_folder. Raises MachineError.

    Returns whether clones can open the memory read-only.
    """
    machine = dataclasses.replace(
        vm.machine, name="template", memory_mib=recipe.base_mib, disk_mib=recipe.disk_mib, address=None, mounts=()
    )

    def undo(machine: Machine, folder: MachineFolder) -> None:
        dataclasses.replace(vm, machine=machine, folder=folder).remove()

    with store.scratch(recipe.key, machine, undo) as folder:
        scratch = dataclasses.replace(vm, machine=machine, folder=folder)
        read_only = _version(scratch) >= READ_ONLY_SINCE
        vm.say("making the template that machines are cloned from (once)")
        credentials.anonymous(machine, folder.seed)
        disk.make(scratch)
        memory = Memory(recipe.base_mib, file=folder / template.MEMORY, shared=True, reporting=read_only)
        scratch.launch(memory)
        timeout = BOOT * vm.patience
        wait.until(lambda: _is_up(scratch), timeout=timeout, what="the template to boot", details=scratch.diagnosis)
        _save(folder, recipe.base_mib, PREPARE * vm.patience)
        scratch.end()
        for name in (template.MEMORY, template.STATE, DISK):
            shutil.move(folder / name, template_folder / name)
    return read_only


def _is_up(scratch: Vm) -> bool:
    if not scratch.process.find():
        raise DriverFailed("the template ended while it booted", details=scratch.diagnosis())
    refusal.check(scratch.folder.console)
    return scratch.folder.console.exists() and b"docker is ready" in scratch.folder.console.read_bytes()


def _save(folder: MachineFolder, base_mib: int, timeout: float) -> None:
    with GuestAgent(folder / AGENT, timeout=timeout) as agent:
        free_mib = int(agent.run("/usr/lib/machineos/prepare-template", timeout=timeout)) >> 10
    # The guest waits on this channel, and must find it open in the clone as it was here.
    with resume.connect(folder), Qmp(folder / MONITOR) as monitor:
        _empty_free_memory(monitor, base_mib, free_mib)
        migration.save(monitor, folder / template.STATE, without_memory=True)


def _empty_free_memory(monitor: Qmp, base_mib: int, free_mib: int) -> None:
    """Take the guest's free memory away and give it back: it is zero then, and takes no place in files or in clones."""
    with contextlib.suppress(WaitTimeout):  # it gave what it could
        _inflate(monitor, base_mib - max(0, free_mib - SPARE_MIB))
    _inflate(monitor, base_mib)


def _inflate(monitor: Qmp, left_mib: int) -> None:
    """Have the guest's balloon leave it so much memory."""
    monitor.execute("balloon", value=left_mib << 20)

    def has_followed() -> bool:
        return bool(monitor.execute("query-balloon")["actual"] == left_mib << 20)

    wait.until(has_followed, timeout=EMPTY, what="the guest to give its free memory back")


def _version(vm: Vm) -> tuple[int, ...]:
    text = vm.run([vm.host().binary, "--version"], timeout=10).stdout
    version = re.search(r"version (\d+)\.(\d+)", text)
    return (int(version[1]), int(version[2])) if version else (0, 0)
