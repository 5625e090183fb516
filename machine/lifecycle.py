"""Starting, stopping and removing a machine that is there; and waiting until one is ready."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

from machine import helper, links, registry, store, wait
from machine.docker import contexts, refusal
from machine.driver import Kind, Machine, State
from machine.errors import DockerFailed, DriverFailed, MachineError, ToolMissing, WaitTimeout
from machine.guest import credentials, existing_host, provision, shutdown
from machine.images import cache, users
from machine.instance import Instance, changing, load
from machine.paths import Image, MachineFolder
from machine.progress import Progress

# Seconds. A cold boot takes 20 s in software emulation on two idle cores, and much more on a busy host.
START_TIMEOUT = 300.0
# A hypervisor on a busy host may not answer for a while.
SILENCE = 20.0
# What listens on Docker's port may have the template's certificate for a moment after a clone has got its own.
LATE = 15.0
CONSOLE_LINES = 15
# So many logins are tried without asking first whether there is an SSH server, which costs half as much.
LOGINS = 5
# The machine's helper logs in and mounts them, which took an emulated host on a busy processor more than a minute.
_FOLDERS = 180.0


def start(name: str, progress: Progress, *, timeout: float = START_TIMEOUT) -> bool:
    """Start the machine and wait until Docker and SSH answer; False when it was running already."""
    with changing(name) as instance:
        driver, image = instance.driver, instance.machine.image
        if (state := driver.state()) is State.RUNNING:
            return False
        if image:
            cache.verify(Image(image))
            driver.check_architecture()
            cache.check_architecture(image, driver.architecture())
            users.note(image)
        driver.say, driver.advance = progress.note, progress.advance
        boot(instance, progress, timeout=timeout)
        for path, why in unmounted(instance, progress).items():
            progress.note(f"{path} is not in the machine: {why}")
        if instance.machine.project:
            _provision(instance, progress, booted=state is State.STOPPED)
    return True


def _provision(instance: Instance, progress: Progress, *, booted: bool) -> None:
    """Run the steps of its machine.yaml that are to run now."""
    from machine.project import provisioning

    if booted:
        provisioning.begin(instance.folder)
    provisioning.run(instance, progress)


def unmounted(instance: Instance, progress: Progress) -> dict[str, str]:
    """Shared folders that a machine hasn't, though it is up: their paths there, each with the reason."""
    if not instance.machine.mounts:
        return {}
    if instance.driver.relays_folders:
        progress.phase("waiting for the shared folders")
    return instance.driver.unmounted(_FOLDERS)


def boot(instance: Instance, progress: Progress, *, timeout: float) -> None:
    """Bring a machine up that is off, or paused: the common end of create and start. Its image has been verified."""
    driver = instance.driver
    match driver.kind:
        case Kind.VM | Kind.CONTAINER:
            _boot_ours(instance, progress, timeout=timeout)
        case Kind.EXISTING_VM:
            wait_ready(instance, progress, timeout=timeout, warm=driver.start())
        case Kind.HOST | Kind.URL:
            driver.start()
            existing_host.set_up(instance, progress)


def boot_to_login(instance: Instance, progress: Progress, *, timeout: float) -> None:
    """Start a machine of a cloud image and wait until SSH lets us in; nothing is installed. Raises WaitTimeout."""
    _start(instance, progress)
    _await_ssh(instance, progress, timeout=timeout)


def _start(instance: Instance, progress: Progress) -> bool:
    """Whether the machine is a clone, which needn't boot."""
    progress.phase("preparing its keys and seed")
    credentials.prepare(instance.driver)
    with contextlib.suppress(MachineError):  # docker's context can be mended later: machine docker-context NAME
        contexts.refresh(instance.docker())
    progress.phase(f"starting the {instance.driver.kind.noun}")
    return instance.driver.start()


def _boot_ours(instance: Instance, progress: Progress, *, timeout: float) -> None:
    warm = _start(instance, progress)
    if (image := instance.machine.image) and cache.is_cloud_image(image):
        _await_ssh(instance, progress, timeout=timeout)
        for change in provision.provision(instance, progress):
            progress.note(change)
        return
    wait_ready(instance, progress, timeout=timeout, warm=warm)


def _await_ssh(instance: Instance, progress: Progress, *, timeout: float) -> None:
    """Wait until cloud-init has let our key in: what else is to be done there is done over SSH."""

    def lets_in() -> bool:
        if instance.driver.state() is State.STOPPED:
            raise DriverFailed("the machine stopped while it was booting", details=_evidence(instance))
        return instance.shell().ready()

    progress.phase("waiting for an SSH login")
    try:
        wait.until(lets_in, timeout=timeout, what="an SSH login", details=lambda: _evidence(instance))
    except WaitTimeout as error:
        _tell_of_timeout(error, instance.name)
        raise


def wait_ready(instance: Instance, progress: Progress, *, timeout: float, warm: bool) -> None:
    """Wait until Docker answers and SSH lets us in. timeout in seconds, for both. warm: the guest didn't boot.

    Raises WaitTimeout, or DriverFailed when the machine ended, each with the hypervisor's view and the console's end;
    EngineRefused as soon as dockerd has said that it won't start.
    """
    deadline = time.monotonic() + timeout
    driver = instance.driver

    began = well = time.monotonic()
    logins = 0
    refused = 0.0

    def pings() -> bool:
        nonlocal refused
        try:
            # A TLS handshake takes milliseconds, and minutes in a busy guest whose processor is interpreted.
            return instance.docker(max(5, (time.monotonic() - began) / 10)).ping()
        except DockerFailed:
            refused = refused or time.monotonic()
            if time.monotonic() - refused > LATE:
                raise
            return False

    def answers() -> bool:
        nonlocal well
        if pings():
            return True
        refusal.check(instance.folder.console, hint=f"machine set --engine-opt-rm OPTION {instance.name}")
        state = driver.state()
        if state is not State.ERROR:
            well = time.monotonic()
        if state is State.STOPPED or time.monotonic() - well > SILENCE:
            raise DriverFailed("the machine stopped while it was booting", details=_evidence(instance))
        return False

    def lets_in() -> bool:
        nonlocal logins
        timeout = max(10, (time.monotonic() - began) / 10)
        logins += 1
        # sshd is up long before Docker; in a clone it is away for a moment, when it takes its new key.
        return instance.shell().ready(timeout, expected=logins <= LOGINS)

    # A login costs an emulated processor a second. In a clone it runs beside Docker's first answer, because both are
    # up, and in a container, which is quick. During a cold boot, SSH is not tried until Docker answers.
    login = _Early(lets_in) if warm or driver.kind is Kind.CONTAINER else None

    for what, probe in (
        (f"Docker to answer on {instance.address.url}", answers),
        ("an SSH login", lambda: login.succeeded() if login and login.pending() else lets_in()),
    ):
        progress.phase(f"waiting for {what}")
        left = max(1.0, deadline - time.monotonic())
        try:
            wait.until(probe, timeout=left, what=what, details=lambda: _evidence(instance))
        except WaitTimeout as error:
            _tell_of_timeout(error, instance.name)
            raise


def _tell_of_timeout(error: WaitTimeout, name: str) -> None:
    error.details = f"{error.details}\n--timeout allows more time".lstrip("\n")
    error.hint = f"machine logs {name}"


class _Early(threading.Thread):
    """A probe that is tried a few times during another wait. If that wait fails, the probe isn't waited for."""

    # Seconds between two tries; also the longest that Ctrl-C is delayed.
    _MOMENT = 0.1

    def __init__(self, probe: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._probe = probe
        self._result = False
        self._heard = False
        self.start()

    def run(self) -> None:
        for _ in range(LOGINS):
            with contextlib.suppress(MachineError):  # the next try tells
                self._result = self._probe()
            if self._result:
                return
            time.sleep(self._MOMENT)

    def pending(self) -> bool:
        """Whether its result was not yet heard."""
        return not self._heard

    def succeeded(self) -> bool:
        """Waits a moment for its end."""
        self.join(self._MOMENT)
        self._heard = not self.is_alive()
        return self._result


def stop(name: str, progress: Progress, *, timeout: float | None = None) -> bool:
    """Shut the guest down through its power button; False when it was off already.

    timeout in seconds, for all of it; None: what its slowest container may take, and a minute. Raises WaitTimeout.
    """
    with changing(name) as instance:
        state = instance.driver.state()
        if state is State.STOPPED:
            return False
        if state is State.SAVED:
            raise MachineError(
                f'the machine "{name}" is suspended',
                hint=f"resume it: machine start {name}; or discard its memory: machine kill {name}",
            )
        shutdown.shut_down(instance, progress, timeout=timeout)
    return True


def kill(name: str, progress: Progress) -> bool:
    """Switch the machine off at once; False when it was off already."""
    with changing(name) as instance:
        if instance.driver.state() is State.STOPPED:
            return False
        progress.phase("switching it off")
        instance.driver.kill()
    return True


def remove(name: str, progress: Progress, *, force: bool = False) -> None:
    """Remove the machine and all that belongs to it.

    force: also when its machine.json can't be read, or its driver fails; a note then names what may be left.
    """
    try:
        instance = load(name) if store.exists(name) else None
    except MachineError:
        if not force:
            raise
        instance = None

    def take_down(folder: MachineFolder) -> None:
        try:
            undo(instance, say=progress.note) if instance else undo_unknown(folder)
        except MachineError as error:
            if not force:
                raise
            progress.note(f"the virtual machine may still exist: {error.message}")

    progress.phase("removing")
    with store.removing(name, take_down):
        pass
    helper.forget(store.folder_of(name))
    if instance:
        users.forget(instance.machine.image)


def undo(instance: Instance, *, say: Callable[[str], None] = lambda text: None) -> None:
    """Remove what a machine has outside its folder."""
    driver = instance.driver
    driver.say = say
    with contextlib.suppress(MachineError):  # a context that is left does no harm
        contexts.remove(instance.name, lambda: instance.address.url)
    driver.remove()
    links.forget(instance.folder.path)


def undo_unknown(folder: MachineFolder) -> None:
    """The same for a folder without a record, with every driver that its machine may have had."""
    unknown = Machine(name=folder.name, driver="", uuid="", mac="", image="", memory_mib=0, cpus=0, disk_mib=0)
    for name in registry.names():
        try:
            driver = Instance(dataclasses.replace(unknown, driver=name), folder).driver
        except MachineError:
            continue
        with contextlib.suppress(ToolMissing):  # without its tool it has made nothing here
            driver.remove()
    links.forget(folder.path)


def _evidence(instance: Instance) -> str:
    console = tail(instance.folder.console, CONSOLE_LINES)
    return "\n".join([instance.driver.diagnosis(), *(f"console: {line}" for line in console)])


def tail(path: Path, lines: int) -> list[str]:
    try:
        return path.read_bytes()[-16384:].decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
