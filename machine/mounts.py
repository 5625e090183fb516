"""Folders of this computer in a machine that is there: added and removed at once if it runs, else at its next start.

What runs has them from three places: its server reads machine.json, its guest boots with the seed, and mounts what
stands in _LIST. Where the machine's helper mounts them (`over_ssh`), it does so when machine.json changes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from machine import paths, store
from machine.driver import State
from machine.errors import CheckFailed, DriverFailed, MachineError, Usage
from machine.folders import mount_spec
from machine.folders.mount_spec import Folder
from machine.guest import credentials, seed
from machine.images import cache
from machine.instance import Instance, changing
from machine.progress import Progress
from machine.spec import Machine

# Seconds: the guest tries to mount a folder for 40 s, others after it once; and to write out what it holds of one.
_MOUNT, _UNMOUNT = 90.0, 60.0
_LIST = "/run/machineos/mounts"
_TOO_OLD = 75
# $1: the lines of the new folders, $2: of all. The guest's own script mounts what the list has, as at boot. It would
# wait for an old folder that has gone from the host.
_ATTACH = f"""
[ -x /usr/lib/machineos/folders ] || exit {_TOO_OLD}
umask 077
rm -f /run/machineos/folders.why
printf %s "$1" >{_LIST}.new && mv {_LIST}.new {_LIST} && /usr/lib/machineos/folders >&2
printf %s "$2" >{_LIST}.new && mv {_LIST}.new {_LIST}
tail -n 1 /run/machineos/folders.why >&2
exec cat /proc/mounts
"""


def add(name: str, texts: Sequence[str], progress: Progress) -> str:
    """Share folders, as --mount takes them; returns what came of it, in a sentence.

    Raises Usage and CheckFailed for what can't be shared, DriverFailed when the guest doesn't mount it; nothing is
    changed then.
    """
    with changing(name) as instance:
        machine = instance.machine
        _check_kind(instance)
        new = _checked(texts, machine)
        if not new:
            return "It has that already."
        target = replace(machine, mounts=(*machine.mounts, *new))
        Instance(target, instance.folder).driver.check()
        if not _is_up(instance):
            store.save(target)
            return f"The machine has it at its next start: machine start {name}"
        if not instance.driver.can_mount():
            store.save(target)
            return f"This machine was started without room for folders. It has it after: machine restart {name}"
        progress.phase("mounting it in the machine")
        try:
            # First: the server must know the folder when the guest comes for it.
            _store(instance, target)
            _await(instance, new) if instance.driver.relays_folders else _attach(instance, target, new)
        except BaseException:
            _store(instance, machine)
            if instance.driver.relays_folders:  # now, when its helper knows of them no more
                _detach(instance, [mount_spec.parse(text) for text in new], force=True)
            raise
    return f"{_words(new)} {'is' if len(new) == 1 else 'are'} in the machine now."


def remove(name: str, words: Sequence[str], progress: Progress, *, force: bool = False) -> str:
    """Share folders no more, which are named by their path on this computer or in the machine.

    force: also when containers use them, which find errors in their place. Raises Usage, MachineError.
    """
    with changing(name) as instance:
        machine = instance.machine
        gone = list(dict.fromkeys(text for word in words for text in _named(machine, word)))
        target = replace(machine, mounts=tuple(text for text in machine.mounts if text not in gone))
        if not _is_up(instance):
            store.save(target)
            return f"The machine {name} has {_words(gone)} no more."
        folders = [mount_spec.parse(text) for text in gone]
        if not force:
            _refuse_used(instance, folders)
        progress.phase("unmounting it in the machine")
        try:
            _detach(instance, folders, force=force)
        except MachineError:
            _attach_again(instance)
            raise
        _store(instance, target)
    return f"{_words(gone)} {'is' if len(gone) == 1 else 'are'} in the machine no more."


def _check_kind(instance: Instance) -> None:
    """Raise CheckFailed for a machine that can't be given folders, with what works there."""
    driver, name = instance.driver, instance.name
    there = ", ".join(mount.target for mount in driver.mounts())
    hint = f"it has {there}, as create gave it" if there else f"copy files: machine scp -r DIR {name}:"
    if not driver.shares:
        raise CheckFailed(f"the driver {driver.name} can't give a machine folders later", hint=hint)


def _checked(texts: Sequence[str], machine: Machine) -> tuple[str, ...]:
    """Those that the machine hasn't yet. Raises Usage and CheckFailed as for create, with this verb in the hint."""
    try:
        if mount_spec.NONE in texts:
            raise Usage("none is no folder", hint=f"machine mount rm {machine.name} DIR")
        new = tuple(text for text in dict.fromkeys(mount_spec.resolved(texts)) if text not in machine.mounts)
        mount_spec.check(new, paths.store(), machine.mounts)
        return new
    except MachineError as error:
        error.hint = error.hint.replace("machine create --mount", f"machine mount add {machine.name}")
        error.hint = error.hint.replace("--mount", f"machine mount add {machine.name}")
        raise


def _is_up(instance: Instance) -> bool:
    """False for a stopped machine. Raises MachineError for one that can't be changed as it is."""
    state, name = instance.driver.state(), instance.name
    if state not in {State.RUNNING, State.STOPPED}:
        what = "suspended" if state is State.SAVED else state.lower()
        raise MachineError(f'the machine "{name}" is {what}', hint=f"machine start {name}")
    return state is State.RUNNING


def _store(instance: Instance, machine: Machine) -> None:
    """Have the server and the next boot know the machine's folders."""
    driver = instance.driver
    driver.machine = machine
    store.save(machine)
    if driver.kind.is_ours:
        seed.overwrite(instance.folder.seed, credentials.describe(machine, instance.folder, driver))
    driver.update_folders()


def _attach(instance: Instance, machine: Machine, new: Sequence[str]) -> None:
    """Raises DriverFailed when the guest doesn't mount a new folder; it has none of them then."""
    words = ["sh", "-c", _ATTACH, "sh", _lines(instance, new), _lines(instance, machine.mounts)]
    done = instance.shell().run(words, check=False, timeout=_MOUNT)
    if done.code == _TOO_OLD:
        raise DriverFailed(
            "this machine's system is of an earlier version, without folders",
            hint=f"machine upgrade {machine.name}",
        )
    folders = [mount_spec.parse(text) for text in new]
    lacks = {folder.target for folder in folders} - _mounted(instance, done.stdout)
    if done.code or lacks:
        _detach(instance, folders, force=True)
        raise DriverFailed(
            f"the machine couldn't mount {', '.join(sorted(lacks))}",
            details=done.stderr,
            hint=f"machine logs {machine.name}",
        )


def _await(instance: Instance, new: Sequence[str]) -> None:
    """As _attach, where the machine's helper mounts them."""
    driver = instance.driver
    driver.state()  # it starts a helper where there is none
    why = driver.unmounted(_MOUNT)
    if lacks := sorted({mount_spec.parse(text).target for text in new} & why.keys()):
        raise DriverFailed(
            f"the machine couldn't mount {', '.join(lacks)}", details="\n".join(why[path] for path in lacks)
        )


def _detach(instance: Instance, folders: Sequence[Folder], *, force: bool) -> None:
    """Raises MachineError when one is in use; others may be unmounted then."""
    remote = instance.shell()
    there = _mounted(instance, remote.read("/proc/mounts") or "")
    # One that is bound has others in it, which hide parts of it: it goes with them.
    lazily = force or instance.driver.binds_folders
    how = ["umount", "-l"] if lazily else ["timeout", str(int(_UNMOUNT)), "umount"]
    for folder in folders:
        if folder.target not in there:
            continue
        done = remote.run([*how, folder.target], check=False, timeout=_UNMOUNT + 30)
        if done.code:
            raise MachineError(
                f"{folder.target} is in use in the machine",
                details=done.stderr,
                hint=f"end what uses it, or: machine mount rm --force {instance.name} {shlex.quote(folder.target)}",
            )
    if _has_list(instance):
        left = [text for text in instance.machine.mounts if mount_spec.parse(text) not in folders]
        remote.write(_LIST, _lines(instance, left), 0o600)


def _has_list(instance: Instance) -> bool:
    """Whether the guest is machineos."""
    image = instance.machine.image
    return instance.driver.kind.is_ours and not (image and cache.is_cloud_image(image))


def _attach_again(instance: Instance) -> None:
    if instance.driver.relays_folders:
        store.save(instance.machine)  # its helper looks then
        return
    lines = _lines(instance, instance.machine.mounts)
    instance.shell().run(["sh", "-c", _ATTACH, "sh", lines, lines], check=False, timeout=_MOUNT)


def _refuse_used(instance: Instance, folders: Sequence[Folder]) -> None:
    """Raise MachineError with the names of the containers that have one of the folders, or a part of it."""
    users = sorted(
        container["Names"][0].removeprefix("/")
        for container in instance.docker().containers()
        if any(_has(container, folder) for folder in folders)
    )
    if users:
        raise MachineError(
            f"containers use it: {', '.join(users)}",
            hint=f"stop them, or: machine mount rm --force {instance.name} {shlex.join(f.target for f in folders)}",
        )


def _has(container: dict[str, object], folder: Folder) -> bool:
    mounts = container.get("Mounts")
    sources = [str(mount.get("Source", "")) for mount in mounts] if isinstance(mounts, list) else []
    return any(
        mount_spec.below(source, folder.target) or mount_spec.below(folder.target, source)
        for source in sources
        if source
    )


def _lines(instance: Instance, mounts: Sequence[str]) -> str:
    """For _LIST."""
    driver = instance.driver
    found = mount_spec.bound(mounts) if driver.binds_folders else ()
    found = found or mount_spec.mounts(mounts, relayed=driver.relays_folders)
    return "".join(map(seed.mount_line, found))


def _mounted(instance: Instance, table: str) -> set[str]:
    return mount_spec.mounted(table, bound=instance.driver.binds_folders)


def _named(machine: Machine, word: str) -> list[str]:
    """The mounts that a word names: one by its path in the machine, or all of a folder of this computer."""
    folders = {text: mount_spec.parse(text) for text in machine.mounts}
    by_target = [text for text, folder in folders.items() if folder.target == str(PurePosixPath(word))]
    source = Path(word).absolute()
    by_source = [text for text, folder in folders.items() if folder.source in {source, source.resolve()}]
    if found := by_target or by_source or [text for text in folders if text == word]:
        return found
    raise Usage(
        f'"{word}" is no folder of this computer that the machine "{machine.name}" has',
        hint=f"machine mount ls {machine.name}",
    )


def _words(mounts: Sequence[str]) -> str:
    return ", ".join(mount_spec.parse(text).target for text in mounts)
