"""Making a template, and starting a new machine as a clone of one: see template.py for what that is."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import threading
import time
from pathlib import Path

from machine import authorities, engine, files, identity, refusal, store, wait
from machine.driver import Machine
from machine.errors import DriverFailed, MachineError, WaitTimeout
from machine.paths import Home
from machine.reasons import reason

from . import disk, failures, saved, sizes, sockets, template
from .argv import AGENT, BASE_DISK, CLONE_OF, DISK, MONITOR, RESUME, Memory
from .qmp import GuestAgent, Qmp
from .template import Recipe, Template, TemplateInfo
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
INTRODUCE = 30.0
END = 2.0

# Up to QEMU 8.1, giving free pages back to the host punches holes into the file that a clone's memory is mapped from,
# also when it is mapped privately: into the template that others use. Since 8.2 it can be opened for reading only.
READ_ONLY_SINCE = (8, 2)


def lay_disk(vm: Vm) -> None:
    """Make the disk of a new machine over its template's, which is made when it isn't there. Raises MachineError."""
    if "@" in engine.docker_env(vm.machine, engine.proxies(os.environ)):
        raise DriverFailed("its proxy needs a password, which must not be in a template")
    wanted = recipe(vm)
    found = template.obtain(vm.home.store, wanted, lambda folder: _make(vm, wanted, folder), vm.say)
    (vm.home / BASE_DISK).unlink(missing_ok=True)
    try:
        os.link(found.disk, vm.home / BASE_DISK)
    except OSError:  # a file system without links
        shutil.copyfile(found.disk, vm.home / BASE_DISK)
    backing = ["-b", BASE_DISK, "-F", "qcow2"]
    vm.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, vm.home / DISK, f"{wanted.disk_mib}M"])
    files.write(vm.home / CLONE_OF, os.fsencode(found.folder))


def start(vm: Vm) -> None:
    """Start a machine whose disk was laid over a template's, with the template's memory. Raises MachineError.

    Where that fails, the template goes if it is damaged. It stays when QEMU or its guest was merely too slow; that QEMU
    couldn't load it, or that its guest refused, is remembered.
    """
    origin = Template(Path(os.fsdecode((vm.home / CLONE_OF).read_bytes())))
    about = origin.about()
    try:
        _start(vm, origin, about)
    except (MachineError, OSError) as error:
        _judge(vm, origin, about, error)
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
    with resume_channel(vm.home) as channel, Qmp(vm.home / MONITOR) as monitor:
        try:
            saved.load(monitor, origin.state, without_memory=True)
        except DriverFailed as error:
            # A QEMU that can't load a state ends; those since 9.1 can say why.
            if isinstance(error, saved.Refused) or _has_ended(vm):
                raise _NotLoaded(error.message) from error
            raise
        # The disk is the guest's own from here on, and no template's memory fits it any more.
        (vm.home / CLONE_OF).unlink()
        monitor.execute("cont")
        disk_mib = int(about.recipe["disk_mib"])
        more_mib = _grow(monitor, vm.machine, memory, disk_mib)
        _introduce(vm, channel, more_mib, disk_mib)


def abandon(vm: Vm) -> None:
    """What `start` couldn't start is a machine that boots from then on, with an empty disk."""
    vm.end()
    # The template's disk has an identity that others have, too.
    disk.make(vm)
    for name in (CLONE_OF, BASE_DISK):
        (vm.home / name).unlink(missing_ok=True)


class _NotLoaded(DriverFailed):
    """QEMU took the state, and couldn't load it."""


class _NotTaken(DriverFailed):
    """The guest answered, and said why it can't become a machine of its own."""


def _has_ended(vm: Vm) -> bool:
    with contextlib.suppress(WaitTimeout):
        return wait.until(lambda: not vm.process.find(), timeout=END, what="QEMU to end")
    return False


def _judge(vm: Vm, origin: Template, about: TemplateInfo, error: Exception) -> None:
    """Find out whether the template is to blame for a clone that didn't start."""
    remembered = (origin.folder.parent, origin.folder.name, about.recipe)
    try:
        origin.verify()
    except template.Damaged as damage:
        vm.say(f"{damage.message}: the next create makes it anew")
        origin.remove()
    except DriverFailed:
        return
    else:
        if isinstance(error, _NotLoaded):
            failures.count_load(*remembered, f"QEMU couldn't load it: {error.message}")
        elif isinstance(error, _NotTaken):
            failures.count_load(*remembered, error.message)


def recipe(vm: Vm) -> Recipe:
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
    proxies = engine.proxies(os.environ)
    settings = [engine.daemon_json(machine), engine.docker_env(machine, proxies), engine.environment(proxies)]
    trusted = authorities.extra()
    return hashlib.sha256(json.dumps([*settings, machine.tls, trusted]).encode()).hexdigest()[:16]


def _processor() -> str:
    """The model of the host's processor: another one may lack what the guest found when it booted."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")


def _make(vm: Vm, wanted: Recipe, folder: Path) -> bool:
    """Boot a machine without an identity and put its memory, state and disk into folder."""
    machine = dataclasses.replace(
        vm.machine, name="template", memory_mib=wanted.base_mib, disk_mib=wanted.disk_mib, address=None
    )
    with store.scratch(
        wanted.key, machine, lambda machine, home: dataclasses.replace(vm, machine=machine, home=home).remove()
    ) as home:
        maker = dataclasses.replace(vm, machine=machine, home=home)
        read_only = _version(maker) >= READ_ONLY_SINCE
        vm.say("making the template that machines are cloned from (once)")
        identity.anonymous(machine, home.seed)
        disk.make(maker)
        memory = Memory(wanted.base_mib, file=home / template.MEMORY, shared=True, reporting=read_only)
        maker.launch(memory)
        wait.until(lambda: _is_up(maker), timeout=BOOT, what="the template to boot", details=maker.diagnosis)
        _save(home, wanted.base_mib)
        maker.end()
        for name in (template.MEMORY, template.STATE, DISK):
            shutil.move(home / name, folder / name)
    return read_only


def _is_up(maker: Vm) -> bool:
    if not maker.process.find():
        raise DriverFailed("the template ended while it booted", details=maker.diagnosis())
    refusal.check(maker.home.console)
    return maker.home.console.exists() and b"docker is ready" in maker.home.console.read_bytes()


def _save(home: Home, base_mib: int) -> None:
    with GuestAgent(home / AGENT, timeout=PREPARE) as agent:
        free_mib = int(agent.run("/usr/lib/machineos/prepare-template", timeout=PREPARE)) >> 10
    # The guest waits on this channel, and must find it open in the clone as it was here.
    with resume_channel(home), Qmp(home / MONITOR) as monitor:
        _empty_free_memory(monitor, base_mib, free_mib)
        saved.save(monitor, home / template.STATE, without_memory=True)


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


def _grow(monitor: Qmp, machine: Machine, memory: Memory, disk_mib: int) -> int:
    """Give the clone its memory and disk, which the guest takes while it runs; returns the MiB that were plugged in."""
    more_mib = 0
    if machine.memory_mib > memory.base_mib:
        more_mib = sizes.plug(monitor, machine.memory_mib - memory.base_mib)
    if machine.disk_mib > disk_mib:
        sizes.enlarge(monitor, machine.disk_mib)
    return more_mib


def resume_channel(home: Home) -> socket.socket:
    short = sockets.reach(home / RESUME)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(INTRODUCE)
    try:
        channel.connect(str(short))
    except OSError as error:
        channel.close()
        raise DriverFailed(f"QEMU doesn't answer on {RESUME}: {reason(error)}") from error
    return channel


def _introduce(vm: Vm, channel: socket.socket, more_mib: int, disk_mib: int) -> None:
    """Tell the guest that it is a machine of its own now; it takes its identity from the seed, and answers.

    more_mib: the memory that is being plugged in, for which the guest sets its limits; older images take no notice.
    """
    larger = "yes" if vm.machine.disk_mib > disk_mib else "no"
    with channel.makefile("rb") as lines:
        try:
            channel.sendall(f"resume {time.time():.0f} {vm.machine.mac} {larger} {more_mib}\n".encode())
            # Its clock is right to the second; a moment earlier, and the exact time would be overwritten.
            if (answer := lines.readline()) == b"dated\n":
                clock = threading.Thread(target=_set_clock, args=(vm.home,))
                clock.start()
                try:
                    answer = lines.readline()
                finally:
                    clock.join()
        except OSError as error:
            raise DriverFailed(f"the guest of the clone didn't take its identity: {reason(error)}") from error
    if answer.strip() != b"resumed":
        said = answer.decode(errors="replace").strip()
        kind = _NotTaken if said else DriverFailed
        raise kind(f"the guest of the clone didn't take its identity: {said or 'it went away'}")


def _set_clock(home: Home) -> None:
    try:
        with GuestAgent(home / AGENT) as agent:
            agent.set_time()
    except MachineError:
        return  # it is right to the second


def _version(vm: Vm) -> tuple[int, ...]:
    text = vm.run([vm.host().binary, "--version"], timeout=10).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
