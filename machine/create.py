"""The create sequence, top to bottom. It ends with a working machine, or leaves nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from machine import files, filesystem, lifecycle, loopback, ownership, paths, resources, settings, spec, store
from machine.errors import CheckFailed, DriverFailed, EngineRefused, MachineExists, before_anything
from machine.guest import provision
from machine.images import cache, users
from machine.instance import Instance, reserve
from machine.paths import Image
from machine.progress import Progress
from machine.spec import Machine


def create(
    asked: Machine, progress: Progress, *, timeout: float = lifecycle.START_TIMEOUT, needs_mounts: bool = True
) -> Machine:
    """Make the machine and wait until Docker and SSH answer. timeout in seconds, for the boot.

    asked comes from `draft`. needs_mounts: to fail when the guest doesn't mount its folders; else it goes without them.
    Raises Usage and CheckFailed before anything is written, MachineExists, WaitTimeout and others.
    """
    spec.check_new_name(asked.name)
    ownership.check_store()
    filesystem.check(paths.store())
    if store.exists(asked.name):
        raise MachineExists(asked.name)
    wanted = Instance(asked, store.folder_of(asked.name))
    with before_anything():
        check(wanted, progress)
    with users.noted(asked.image), reserve(wanted, placed, lifecycle.undo, progress.note) as instance:
        driver = instance.driver
        driver.say, driver.advance = progress.note, progress.advance
        progress.phase(f"making the {driver.kind.noun}")
        try:
            driver.create()
            lifecycle.boot(instance, progress, timeout=timeout)
            if why := lifecycle.unmounted(instance, progress):
                if needs_mounts:
                    raise DriverFailed("the guest didn't mount the shared folders", hint=next(iter(why.values())))
                progress.note(f"the guest didn't mount your home folder: {next(iter(why.values()))}")
                instance = _without_mounts(instance)
            if driver.kind.is_provisioned:
                provision.check(instance, progress)
        except EngineRefused as error:
            error.hint = "correct the engine option, or leave it out; nothing was made"
            raise
        if driver.kind.is_provisioned:
            progress.note(_folders(instance))
    return instance.machine


@contextlib.contextmanager
def temporary(asked: Machine, progress: Progress, *, timeout: float) -> Iterator[Instance]:
    """A machine of a cloud image, with SSH and without Docker, which exists as long as the block.

    When this process is killed, the next command removes it. timeout in seconds, for the boot. Raises as `create` does.
    """
    wanted = Instance(asked, store.folder_of(asked.name))
    check(wanted, progress)
    # It is never more than a machine that is being made, so what undoes a `create` that failed or was killed undoes it.
    with (
        contextlib.suppress(_Over),
        users.noted(asked.image),
        reserve(wanted, placed, lifecycle.undo, progress.note) as instance,
    ):
        instance.driver.say, instance.driver.advance = progress.note, progress.advance
        progress.phase(f"making the {instance.driver.kind.noun}")
        instance.driver.create()
        lifecycle.boot_to_login(instance, progress, timeout=timeout)
        yield instance
        raise _Over


class _Over(Exception):
    """The block of a temporary machine has ended well."""


def default_mounts(machine: Machine) -> tuple[str, ...]:
    """What a machine shares when nothing was said: the user's home folder, where driver and image can."""
    from machine.folders import mount_spec

    driver = Instance(machine, store.folder_of(machine.name)).driver
    # A publisher's kernel may have no NFS: there it is for the user to ask.
    is_asked = not driver.shares_home() or (machine.image and cache.is_cloud_image(machine.image))
    return () if is_asked else mount_spec.home()


def _without_mounts(instance: Instance) -> Instance:
    machine = dataclasses.replace(instance.machine, mounts=())
    files.write(instance.folder.creating, spec.dumps(machine))
    return Instance(machine, instance.folder)


def draft(
    name: str, driver: str, image: str, *, memory_mib: int, cpus: int, disk_mib: int, architecture: str = ""
) -> Machine:
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
        architecture=architecture,
    )


def check(wanted: Instance, progress: Progress) -> None:
    """All checks that are possible before anything is written. Raises Usage, CheckFailed, ImageCorrupt."""
    check_host(wanted, progress)
    # Before the driver makes anything: it may boot a template from it.
    check_image(wanted)


def check_host(wanted: Instance, progress: Progress) -> None:
    """Whether this host can have such a machine, whatever it boots. Raises Usage, CheckFailed."""
    settings.check(wanted.machine)
    driver = wanted.driver
    driver.check_architecture()
    check_mounts(wanted)
    check_network(wanted)
    for note in [*(_sizes(wanted.machine) if driver.is_local() else ()), *driver.check()]:
        progress.note(note)


def default_network(machine: Machine) -> str:
    """The network that a machine is on when nothing was said: the store's own, where its driver and image can."""
    from machine.network import addresses

    driver = Instance(machine, store.folder_of(machine.name)).driver
    return addresses.DEFAULT if driver.networks and not driver.why_no_network() else ""


def check_network(wanted: Instance) -> None:
    """Whether it can be on the network that it was asked for. Raises CheckFailed."""
    if not wanted.machine.network:
        return
    if why := wanted.driver.why_no_network():
        network = wanted.machine.network
        raise CheckFailed(f'the network "{network}" can\'t have this machine: {why}', hint="--network none")
    from machine.network import networks

    networks.check(wanted.machine.network)


def check_mounts(wanted: Instance) -> None:
    """Whether it can have the folders that it is to share. Raises Usage, CheckFailed."""
    machine, driver = wanted.machine, wanted.driver
    if not machine.mounts:
        return
    from machine.folders import mount_spec

    mount_spec.check(machine.mounts, paths.store())
    if not driver.shares:
        raise CheckFailed(f"the driver {driver.name} has no --mount", hint="machine create --driver qemu --mount DIR")


def _folders(instance: Instance) -> str:
    """What to say of the folders of this host that a machine has."""
    driver = instance.driver
    there = ", ".join(folder.target for folder in driver.mounts() or driver.folders())
    if not driver.kind.is_ours:
        if there:
            return f"docker run -v shows files of this computer below {there}, and the host's elsewhere"
        ways = f"machine mount add {instance.name} DIR; to copy one there: machine scp -r DIR {instance.name}:"
        return f"docker run -v shows folders of the host, and none of this computer; to share one: {ways}"
    if there:
        return f"docker run -v shows files of this computer below {there}, and empty folders elsewhere"
    if not driver.shares:
        way = "machineos with the driver qemu or libvirt shares one: machine create --mount DIR"
    else:
        from machine.folders import mount_spec

        why = "" if driver.shares_home() else "the machine is on another computer"
        if not why and instance.machine.image and cache.is_cloud_image(instance.machine.image):
            why = "the system isn't machineos"
        why = why or mount_spec.why_not_home()
        way = f"your home folder isn't there, because {why}; share another" if why else "share one"
        way += f": machine mount add {instance.name} DIR"
    return f"it shares no folder of this computer, so docker run -v shows empty folders; {way}"


def check_image(wanted: Instance) -> None:
    """Whether its driver can boot its image, if it has one. Raises CheckFailed, NoSuchImage, ImageCorrupt."""
    image, driver = wanted.machine.image, wanted.driver
    if not image:
        return
    cache.verify(Image(image))
    cache.check_architecture(image, driver.architecture(), can_follow=driver.emulates)
    if not driver.cloud_images and cache.is_cloud_image(image):
        raise CheckFailed(
            f"the driver {driver.name} boots machineos only", hint="use the image of this driver: --image machineos"
        )


def _sizes(asked: Machine) -> list[str]:
    return [
        *resources.check_memory(asked.memory_mib),
        *resources.check_cpus(asked.cpus),
        *resources.check_disk(asked.disk_mib, _existing(paths.store())),
    ]


def placed(wanted: Instance, others: list[Machine]) -> Instance:
    """The machine with an address that no other machine has, if its driver takes one."""
    driver = wanted.driver
    if not driver.on_loopback():
        return wanted
    taken = [other.address for other in others if other.address]
    return wanted.at(loopback.choose(taken, paths.store(), lowest_port=driver.lowest_port()))


def _mac() -> str:
    """A random address in the range that QEMU and libvirt use, 52:54:00 (locally administered)."""
    return ":".join(["52", "54", "00", *(f"{random.SystemRandom().randrange(256):02x}" for _ in range(3))])


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
