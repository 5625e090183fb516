"""Other settings for a dockerd that runs, without touching its containers where that can be.

What dockerd can take while it runs, it takes by a reload (SIGHUP). For the rest it is started anew with live-restore
on, which keeps containers running while no daemon is there. When dockerd refuses, what was before is brought back.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from machine import wait
from machine.docker import api, refusal
from machine.docker.daemon import CONFIG, RELOAD, Service
from machine.errors import CheckFailed, DockerFailed, EngineRefused, MachineError, ToolFailed
from machine.progress import Progress
from machine.ssh.remote import Remote

# What dockerd takes by SIGHUP (its manual, "configuration reload behavior"), and the value of a setting that is taken
# away: without one the old would stay.
RELOADABLE: dict[str, object] = {
    "allow-nondistributable-artifacts": [],
    "debug": False,
    "insecure-registries": [],
    "labels": [],
    "live-restore": False,
    "max-concurrent-downloads": 3,
    "max-concurrent-uploads": 5,
    "max-download-attempts": 5,
    "registry-mirrors": [],
    "shutdown-timeout": 15,
}
# Settings of what containers that run stand on: their layers, their network, their users. live-restore can't carry them
# over (Docker's manual, "live restore": it needs the same options for the daemon's storage and networks).
UNDER_CONTAINERS = {
    "bip",
    "bridge",
    "containerd-namespace",
    "default-gateway",
    "default-gateway-v6",
    "exec-opts",
    "features",
    "fixed-cidr",
    "fixed-cidr-v6",
    "icc",
    "ip",
    "ip-forward",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "mtu",
    "storage-driver",
    "storage-opts",
    "userland-proxy",
    "userns-remap",
}
# Seconds.
RESTART = 300.0
RELOADED = 15
_LIVE = "live-restore"
_VALIDATE = (
    'umask 077; file=$(mktemp) && cat >"$file" && dockerd --validate --config-file="$file"; '
    'code=$?; rm -f "$file"; exit $code'
)
# A dockerd that is older, or isn't on root's path.
_CANT_VALIDATE = re.compile("unknown flag: --validate|dockerd: (?:command )?not found")
Config = dict[str, object]


class Outcome(StrEnum):
    UNCHANGED = "unchanged"
    RELOADED = "reloaded"
    RESTARTED = "restarted"
    KEPT_CONTAINERS = "restarted under its containers"
    STOPPED_CONTAINERS = "restarted with its containers"


class Reconfiguration:
    """files: what daemon.json and the file with the daemon's environment are to hold, by their paths; a program that
    starts the daemon reads the latter.
    """

    def __init__(
        self, client: api.Client, remote: Remote, service: Service, files: Mapping[str, str], progress: Progress
    ) -> None:
        self.client = client
        self.remote = remote
        self.service = service
        self.files = files
        self.progress = progress
        self.before = {path: remote.read(path) or "" for path in files}
        self.old: Config = json.loads(self.before[CONFIG] or "{}")
        self.new: Config = json.loads(files[CONFIG])

    def run(self, *, force: bool = False) -> Outcome:
        """Bring the settings into use. force: also when containers stop for it, or when Docker doesn't say which run.

        Raises EngineRefused, and CheckFailed or DockerFailed before anything is changed when containers would stop.
        """
        changed = {key for key in self.old.keys() | self.new.keys() if self.old.get(key) != self.new.get(key)}
        others = any(text != self.before[path] for path, text in self.files.items() if path != CONFIG)
        if not changed and not others:
            return Outcome.UNCHANGED
        self.progress.phase("checking Docker's settings")
        self._validate()
        info = self._info(force=force)
        if info is not None and not others and changed <= RELOADABLE.keys():
            self._reload_all(changed)
            return Outcome.RELOADED
        running = int(str((info or {}).get("ContainersRunning", 0)))
        reason = self._why_containers_stop(changed, info or {})
        if running and reason and not force:
            raise CheckFailed(
                f"Docker would have to stop its {running} running containers: {reason}",
                hint="repeat the command with --force: they stop, and those with a restart policy start again",
            )
        self._restart(live=bool(running and not reason))
        if not running and not (force and info is None):
            return Outcome.RESTARTED
        return Outcome.KEPT_CONTAINERS if running and not reason else Outcome.STOPPED_CONTAINERS

    def _why_containers_stop(self, changed: set[str], info: Mapping[str, object]) -> str:
        swarm = info.get("Swarm")
        if isinstance(swarm, dict) and swarm.get("LocalNodeState") == "active":
            return "it is in a swarm, where containers don't outlive the daemon"
        if self.new.get(_LIVE) is False:
            return "its option live-restore is off"
        under = sorted(changed & UNDER_CONTAINERS)
        return f"they depend on its {' and '.join(under)}" if under else ""

    def _reload_all(self, changed: set[str]) -> None:
        self.progress.phase("reloading Docker's settings")
        taken_away = {key: RELOADABLE[key] for key in changed if key not in self.new}
        try:
            self._reload({**self.new, **taken_away})
        except BaseException:
            back = {key: RELOADABLE[key] for key in changed if key not in self.old}
            with contextlib.suppress(MachineError):
                self._reload({**self.old, **back})
            self._write(self.before)
            raise
        self._write(self.files)

    def _restart(self, *, live: bool) -> None:
        """live: containers run on meanwhile, which takes a daemon before and after that knows of it."""
        self.progress.phase("restarting Docker with its settings")
        kept = {_LIVE: True} if live else {}
        if live and self.old.get(_LIVE) is not True:
            try:
                self._reload({**self.old, **kept})
            except BaseException:
                self._write(self.before)
                raise
        try:
            self._start({**self.files, CONFIG: _text({**self.new, **kept})})
            check_storage(self.client, self.new)
        except BaseException:
            self.progress.phase("restoring Docker's old settings")
            self._start({**self.before, CONFIG: _text({**self.old, **kept})})
            self._forget_live(self.old, self.before, live=live)
            raise
        self._forget_live(self.new, self.files, live=live)

    def _forget_live(self, config: Config, files: Mapping[str, str], *, live: bool) -> None:
        if live and config.get(_LIVE) is not True:
            self._reload({**config, _LIVE: False})
        self._write(files)

    def _start(self, files: Mapping[str, str]) -> None:
        self._write(files)
        mark = self._shell(self.service.mark).strip()
        with contextlib.suppress(ToolFailed):  # its log says more than the service's
            self._shell(self.service.restart, timeout=RESTART)
        self._await(mark)

    def _await(self, mark: str) -> None:
        def answers() -> bool:
            with contextlib.suppress(DockerFailed):
                if self.client.ping():
                    return True
            if words := refusal.fatal(self._shell(self.service.log, mark)):
                raise EngineRefused(words)
            return False

        wait.until(answers, timeout=RESTART, what="Docker to answer with its new settings", slowest=2)

    def _reload(self, config: Config) -> None:
        self._write({CONFIG: _text(config)})
        mark = self._shell(self.service.mark).strip()
        since = _seconds(str(self.client.info()["SystemTime"]))
        self._shell(RELOAD)
        if not self.client.reloaded(since, RELOADED):
            log = self._shell(self.service.log, mark).strip().splitlines()
            raise EngineRefused(log[-1] if log else "it didn't reload them")

    def _validate(self) -> None:
        """Have dockerd read the new daemon.json without starting it; dockerd knows how since version 23."""
        done = self.remote.run(["sh", "-c", _VALIDATE], input=self.files[CONFIG].encode(), check=False)
        said = (done.stdout + done.stderr).strip()
        words = refusal.fatal(said) or ("" if _CANT_VALIDATE.search(said) else said.rpartition("\n")[2])
        if done.code and words:
            raise EngineRefused(re.sub(r"with file \S+", f"with file {CONFIG}", words))

    def _info(self, *, force: bool) -> Mapping[str, object] | None:
        """What `docker info` says; None of a daemon that refuses the settings that it has now, or by force."""
        try:
            return self.client.info()
        except DockerFailed:
            if not force and not self._refuses():
                raise
            return None

    def _refuses(self) -> bool:
        """Whether the daemon gave up the last time that it started: then it has no containers to lose."""
        log = self._shell(self.service.log, "0")
        return bool(refusal.fatal(log.rpartition("Daemon has completed initialization")[2]))

    def _write(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            self.remote.write(path, text)

    def _shell(self, script: str, *words: str, timeout: float = 60) -> str:
        return self.remote.run(["sh", "-c", script, "sh", *words], timeout=timeout).stdout


def check_storage(client: api.Client, config: Mapping[str, object]) -> None:
    """Raise MachineError when Docker runs with another storage driver than daemon.json names."""
    asked = config.get("storage-driver")
    if asked and (used := client.info().get("Driver")) != asked:
        raise MachineError(
            f"Docker uses the storage driver {used}, not {asked}: the machine's system is too old to change it",
            hint=f"machine upgrade {client.machine.name}",
        )


def _text(config: Config) -> str:
    return json.dumps(config, indent=2) + "\n"


def _seconds(time: str) -> str:
    """2026-11-27T14:30:11.123456789Z as the API takes a moment: seconds since 1970, and nanoseconds."""
    match = re.fullmatch(r"(.*?)(\.\d+)?(Z|[+-]\d\d:\d\d)", time)
    if not match:
        return "0"
    moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return f"{moment.timestamp():.0f}{match[2] or ''}"
