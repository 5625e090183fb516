"""The create sequence, top to bottom. It ends with a working machine, or leaves nothing."""

from __future__ import annotations

import dataclasses
import random
import uuid
from datetime import UTC, datetime
from pathlib import Path

from machine import (
    filesystem,
    image_users,
    images,
    lifecycle,
    loopback,
    ownership,
    paths,
    provision,
    registry,
    resources,
    settings,
    spec,
    store,
)
from machine.driver import Driver, Machine
from machine.errors import CheckFailed, EngineRefused, MachineExists, before_anything
from machine.paths import Home, Image
from machine.progress import Progress
from machine.run import run


def create(asked: Machine, progress: Progress, *, timeout: float = lifecycle.START_TIMEOUT) -> Machine:
    """Make the machine and wait until Docker and SSH answer. timeout in seconds, for the boot.

    asked comes from `draft`. Raises Usage and CheckFailed before anything is written, MachineExists, WaitTimeout and
    others.
    """
    spec.check_new_name(asked.name)
    ownership.check_store()
    filesystem.check(paths.store())
    if store.exists(asked.name):
        raise MachineExists(asked.name)
    with before_anything():
        check(asked, progress)
    reserved = store.reserve(asked.name, lambda others: placed(asked, others), lifecycle.undo, progress.note)
    with image_users.noted(asked.image), reserved as (machine, home):
        backend = lifecycle.driver(machine, home)
        backend.say, backend.advance = progress.note, progress.advance
        progress.phase("making the virtual machine")
        try:
            backend.create()
            lifecycle.boot(machine, home, backend, progress, timeout=timeout)
            if backend.kind.is_provisioned:
                provision.check(machine, home, backend.address(), progress)
        except EngineRefused as error:
            error.hint = "correct the engine option, or leave it out; nothing was made"
            raise
    return machine


def draft(name: str, driver: str, image: str, *, memory_mib: int, cpus: int, disk_mib: int) -> Machine:
    """A machine with an identity of its own, and no address yet."""
    return Machine(
        name=name,
        driver=driver,
        uuid=str(uuid.uuid4()),
        mac=_mac(),
        image=image,
        memory_mib=memory_mib,
        cpus=cpus,
        disk_mib=disk_mib,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def check(asked: Machine, progress: Progress) -> None:
    """Everything that can be found out before something is written. Raises Usage, CheckFailed, ImageCorrupt."""
    check_host(asked, progress)
    # Before the driver makes anything: it may boot a template from it.
    check_image(asked)


def check_host(asked: Machine, progress: Progress) -> None:
    """Whether this host can have such a machine, whatever it boots. Raises Usage, CheckFailed."""
    settings.check(asked)
    backend = _driver(asked)
    for note in [*(_sizes(asked) if backend.is_local() else ()), *backend.check()]:
        progress.note(note)


def check_image(asked: Machine) -> None:
    """Whether its driver can boot its image, if it has one. Raises CheckFailed, NoSuchImage, ImageCorrupt."""
    if not asked.image:
        return
    images.verify(Image(asked.image))
    backend = _driver(asked)
    images.check_architecture(asked.image, backend.architecture())
    if not backend.cloud_images and images.is_cloud_image(asked.image):
        raise CheckFailed(
            f"the driver {backend.name} boots machineos only", hint="use the image of this driver: --image machineos"
        )


def _driver(asked: Machine) -> Driver:
    return registry.load(asked.driver)(asked, Home(store.folder() / asked.name), run)


def _sizes(asked: Machine) -> list[str]:
    return [
        *resources.check_memory(asked.memory_mib),
        *resources.check_cpus(asked.cpus),
        *resources.check_disk(asked.disk_mib, _existing(paths.store())),
    ]


def placed(asked: Machine, others: list[Machine]) -> Machine:
    """The machine with an address that none of the others has, where its driver takes one."""
    backend = lifecycle.driver(asked, store.home(asked.name))
    if not backend.on_loopback():
        return asked
    taken = [other.address for other in others if other.address]
    address = loopback.choose(taken, paths.store(), lowest_port=backend.lowest_port())
    return dataclasses.replace(asked, address=address)


def _mac() -> str:
    """A random address in the range that QEMU and libvirt use, 52:54:00 (locally administered)."""
    return ":".join(["52", "54", "00", *(f"{random.SystemRandom().randrange(256):02x}" for _ in range(3))])


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
