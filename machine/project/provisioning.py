"""Running the steps and probes of a machine over SSH.

The record in the machine's folder says which steps are done, so a run goes on where the last one failed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shlex
import tarfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from machine import ssh, wait
from machine.errors import MachineError, SSHFailed, SSHTimeout
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.progress import Progress
from machine.project import record
from machine.project.record import Record
from machine.project.steps import Mode, Probe, Step, files, probed
from machine.run import Completed

LOG = "provision.log"
# Bytes, after which the log begins anew; lines of it that an error shows.
_LOG_LIMIT, _SHOWN = 1 << 20, 15
# Seconds, beyond a step's own: to log in, and for its guest to end it.
_GRACE = 60
# Of timeout(1), and of a shell whose command a signal ended: SIGTERM.
_EXPIRED = {124, 143}
# $1: seconds, $2: the machine's name; the script comes on stdin. Its first line chooses the interpreter, else sh.
_SCRIPT = """
exec 2>&1
umask 077
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT
cat >"$folder/step" && chmod 700 "$folder/step" || exit
umask 022
[ "$(id -u)" != 0 ] || cd /
export MACHINE_NAME="$2"
if [ "$(head -c 2 "$folder/step")" = '#!' ]; then set -- "$1"; else set -- "$1" sh; fi
seconds=$1; shift
timeout "$seconds" "$@" "$folder/step" </dev/null
"""
# $1: the folder, $2: what is put there, $3: its owner, "" for whoever runs this. A tar archive comes on stdin.
_COPY = """
exec 2>&1
mkdir -p "$1" && tar -x -f - -C "$1" || exit
[ -z "$3" ] || chown -R "$3" "$1/$2"
"""


def pending(known: Record) -> list[Step]:
    """Those that a machine which is up still lacks, in order. Raises CheckFailed for a file that has gone."""
    return [
        step for step in known.steps if step.digest() not in (known.booted if step.mode is Mode.BOOT else known.done)
    ]


def begin(folder: MachineFolder) -> None:
    """The machine boots: what runs at each boot is to run again, and probes are to be asked again."""
    known = record.read(folder)
    if known.booted or known.probed:
        record.write(folder, dataclasses.replace(known, booted={}, probed=""))


def run(instance: Instance, progress: Progress) -> list[str]:
    """Run what is pending; returns the names of the steps that ran. Raises MachineError for the one that failed."""
    known = record.read(instance.folder)
    ran = []
    for step in pending(known):
        progress.phase(step.name)
        _run(instance, step)
        now = {step.digest(): datetime.now(UTC).isoformat(timespec="seconds")}
        if step.mode is Mode.BOOT:
            known = dataclasses.replace(known, booted=known.booted | now)
        else:
            known = dataclasses.replace(known, done=known.done | now)
        record.write(instance.folder, known)
        ran.append(step.name)
    return ran


def probe(instance: Instance, progress: Progress) -> None:
    """Wait until all probes succeed, unless they have since the machine booted. Raises WaitTimeout with their hint."""
    known = record.read(instance.folder)
    if known.probed == probed(known.probes):
        return
    for one in known.probes:
        progress.phase(f"waiting for {one.name}")
        _probe(instance, one)
    record.write(instance.folder, dataclasses.replace(known, probed=probed(known.probes)))


def _probe(instance: Instance, probe: Probe) -> None:
    last = ""

    def succeeds() -> bool:
        nonlocal last
        try:
            done = instance.shell().run(["sh", "-c", probe.command], check=False, timeout=max(10, probe.timeout))
        except SSHFailed as error:
            last = error.message
            return False
        last = f"exit code {done.code}\n{done.stdout}{done.stderr}"
        return done.code == 0

    try:
        wait.until(succeeds, timeout=probe.timeout, what=probe.name, details=lambda: last)
    except MachineError as error:
        error.hint = probe.hint or f"machine ssh {instance.name}"
        raise


def _run(instance: Instance, step: Step) -> None:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        done = _copied(instance, step) if step.source else _script(instance, step)
    except SSHTimeout as error:
        _log(instance.folder, f"== {began} {step.name}: {error.message}\n")
        raise
    printed = done.stdout + done.stderr
    _log(instance.folder, f"== {began} {step.name}: exit code {done.code}\n{printed.rstrip()}\n")
    if not done.code:
        return
    expired = done.code in _EXPIRED and not step.source
    what = f"took longer than {step.timeout} s" if expired else f"failed with exit code {done.code}"
    raise MachineError(
        f"{step.name} {what}; machine up goes on there",
        details="\n".join(printed.strip().splitlines()[-_SHOWN:]),
        hint=f"machine logs --provision {instance.name}",
    )


def _script(instance: Instance, step: Step) -> Completed:
    words = ["sh", "-c", _SCRIPT, "sh", str(step.timeout), instance.name]
    return _execute(instance, step, words, step.script.encode())


def _copied(instance: Instance, step: Step) -> Completed:
    target = PurePosixPath(step.target)
    words = ["sh", "-c", _COPY, "sh", str(target.parent), target.name, step.owner]
    return _execute(instance, step, words, _archive(Path(step.source), target.name, step.permissions))


def _execute(instance: Instance, step: Step, words: list[str], data: bytes) -> Completed:
    shell, timeout = instance.shell(), step.timeout + _GRACE
    if step.mode is not Mode.USER:
        return shell.run(words, input=data, check=False, timeout=timeout)
    typed = [shlex.join(words)]
    return ssh.run(shell.folder, shell.address, shell.user, typed, input=data, check=False, timeout=timeout)


def _archive(source: Path, name: str, permissions: str) -> bytes:
    """source as `name`, owned by root where root unpacks it."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        if permissions and member.isfile():
            member.mode = int(permissions, 8)
        return member

    out = io.BytesIO()
    files(source)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(source, name, filter=plain)
    return out.getvalue()


def _log(folder: MachineFolder, text: str) -> None:
    path = folder / LOG
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_name(f"{LOG}.1"))
    with path.open("a", encoding="utf-8", errors="replace") as file:
        path.chmod(0o600)
        file.write(text)
