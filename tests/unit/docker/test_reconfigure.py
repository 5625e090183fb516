"""Other settings for a daemon that runs, against a model of dockerd: its reload, its restart, its refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from machine.docker import api, reconfigure
from machine.docker.daemon import CONFIG, MACHINEOS, RELOAD
from machine.docker.reconfigure import Outcome, Reconfiguration
from machine.errors import CheckFailed, DockerFailed, EngineRefused, MachineError, ToolFailed
from machine.progress import Silent
from machine.run import Completed

ENV = "/run/machineos/docker.env"
BAD = "failed to start daemon: driver not supported: btrfs"


class Dockerd:
    """Has two containers. A reload changes what can be reloaded and is there; a daemon without live-restore takes its
    containers with it, and one that finds containers of an earlier daemon ends them without it, too.
    """

    def __init__(self, **config: object) -> None:
        self.files = {CONFIG: json.dumps(config), ENV: ""}
        self.config: dict[str, object] = dict(config)
        self.environment = ""
        self.up = True
        self.containers = 2
        self.swarm = "inactive"
        self.reloads = self.starts = 0
        self.log = ""
        self.validates = True
        self.reload_fails = False
        # One that exports DOCKER_DRIVER=overlay2.
        self.old_system = False
        self.machine = SimpleNamespace(name="dev")

    # What provisioning needs of its host.

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> Completed:
        code, out, err = 0, "", ""
        if argv[2] == reconfigure._VALIDATE:
            code, err = self._validate((input or b"").decode())
        elif argv[2] == RELOAD:
            self._reload()
        elif argv[2] == MACHINEOS.restart:
            self._restart()
        elif argv[2] == MACHINEOS.mark:
            out = str(len(self.log))
        elif argv[2] == MACHINEOS.log:
            out = self.log[int(argv[4]) :]
        else:
            raise AssertionError(argv)
        if check and code:
            raise ToolFailed(argv, code, err)
        return Completed(list(argv), code, out, err)

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.files[path] = text

    # What it answers on its port.

    def ping(self) -> bool:
        return self.up

    def info(self) -> dict[str, Any]:
        if not self.up:
            raise DockerFailed("nothing answers")
        self.asked = self.reloads
        return {
            "SystemTime": "2026-11-27T14:30:11.5Z",
            "Driver": "overlay2" if self.old_system else self.config.get("storage-driver", "overlay2"),
            "ContainersRunning": self.containers,
            "Swarm": {"LocalNodeState": self.swarm},
        }

    def reloaded(self, since: str, within: int) -> bool:
        assert since == "1795789811.5"
        return self.reloads > self.asked

    # What it does.

    def _validate(self, text: str) -> tuple[int, str]:
        if not self.validates:
            return 125, "Status: unknown flag: --validate\nSee 'dockerd --help'., Code: 125\n"
        unknown = [key for key in json.loads(text) if key == "nosuch"]
        return (1, "unable to configure the Docker daemon with file /tmp/tmp.1: nosuch") if unknown else (0, "")

    def _reload(self) -> None:
        assert self.up
        config = json.loads(self.files[CONFIG])
        if "nosuch" in config or self.reload_fails:
            self.log += "Error reconfiguring the daemon: nosuch\n"
            return
        self.config |= {key: value for key, value in config.items() if key in reconfigure.RELOADABLE}
        self.reloads += 1

    def _restart(self) -> None:
        if self.up and not self.config.get("live-restore"):
            self.containers = 0
        self.config = json.loads(self.files[CONFIG])
        self.environment = self.files[ENV]
        self.up = self.config.get("storage-driver") != "btrfs" and "nosuch" not in self.config
        self.starts += 1
        self.log += "" if self.up else f"{BAD}\n"
        if self.up and not self.config.get("live-restore"):
            self.containers = 0


def change(daemon: Dockerd, config: dict[str, object], env: str = "", *, force: bool = False) -> Outcome:
    files = {CONFIG: json.dumps(config, indent=2) + "\n", ENV: env}
    client = cast(api.Client, daemon)
    return Reconfiguration(client, daemon, MACHINEOS, files, Silent()).run(force=force)


def test_nothing_to_do() -> None:
    daemon = Dockerd(labels=["a=1"])
    assert change(daemon, {"labels": ["a=1"]}) is Outcome.UNCHANGED
    assert (daemon.reloads, daemon.starts) == (0, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"labels": ["a=1"]}, {"labels": ["a=1", "b=2"]}),
        ({}, {"registry-mirrors": ["http://a"], "insecure-registries": ["b"], "debug": True}),
        ({"registry-mirrors": ["http://a"], "debug": True, "max-concurrent-downloads": 9}, {}),
    ],
)
def test_what_can_be_reloaded_is(before: dict[str, object], after: dict[str, object]) -> None:
    daemon = Dockerd(**before)
    assert change(daemon, after) is Outcome.RELOADED
    assert (daemon.reloads, daemon.starts, daemon.containers) == (1, 0, 2)
    assert {key: daemon.config[key] for key in after} == after
    assert all(daemon.config[key] == reconfigure.RELOADABLE[key] for key in before if key not in after)
    # Nothing of our doing stays in the file: the machine's next start writes it so.
    assert json.loads(daemon.files[CONFIG]) == after


def test_a_reload_that_is_refused_changes_nothing() -> None:
    daemon = Dockerd(labels=["a=1"])
    daemon.reload_fails = True
    with pytest.raises(EngineRefused, match="Error reconfiguring the daemon: nosuch"):
        change(daemon, {"labels": ["b=2"]})
    assert json.loads(daemon.files[CONFIG]) == {"labels": ["a=1"]}


@pytest.mark.parametrize(
    ("config", "env"),
    [({"log-driver": "local"}, ""), ({}, "export HTTP_PROXY='http://p:1'\n")],
    ids=["option", "proxy"],
)
def test_containers_outlive_a_restart(config: dict[str, object], env: str) -> None:
    daemon = Dockerd()
    assert change(daemon, config, env) is Outcome.KEPT_CONTAINERS
    assert (daemon.starts, daemon.containers, daemon.environment) == (1, 2, env)
    assert daemon.config == {**config, "live-restore": False}
    assert json.loads(daemon.files[CONFIG]) == config


def test_live_restore_that_is_on_stays_on() -> None:
    daemon = Dockerd(**{"live-restore": True})
    assert change(daemon, {"live-restore": True, "log-driver": "local"}) is Outcome.KEPT_CONTAINERS
    assert (daemon.starts, daemon.reloads, daemon.containers) == (1, 0, 2)


@pytest.mark.parametrize(
    ("config", "swarm", "reason"),
    [
        ({"storage-driver": "vfs"}, "inactive", "they depend on its storage-driver"),
        ({"bip": "10.9.0.1/24", "mtu": 1400}, "inactive", "they depend on its bip and mtu"),
        ({"log-driver": "local"}, "active", "it is in a swarm"),
        ({"log-driver": "local", "live-restore": False}, "inactive", "live-restore is off"),
    ],
)
def test_containers_are_stopped_only_when_it_is_said(config: dict[str, object], swarm: str, reason: str) -> None:
    daemon = Dockerd()
    daemon.swarm = swarm
    with pytest.raises(CheckFailed, match=f"would have to stop its 2 running containers: .*{reason}"):
        change(daemon, config)
    assert (daemon.starts, daemon.reloads, daemon.containers, daemon.files[CONFIG]) == (0, 0, 2, "{}")
    assert change(daemon, config, force=True) is Outcome.STOPPED_CONTAINERS
    assert (daemon.starts, daemon.config) == (1, config)


def test_without_containers_nothing_is_asked() -> None:
    daemon = Dockerd()
    daemon.containers = 0
    assert change(daemon, {"storage-driver": "vfs"}) is Outcome.RESTARTED
    assert (daemon.starts, daemon.reloads) == (1, 0)


@pytest.mark.parametrize("validates", [True, False], ids=["validate", "older"])
def test_what_dockerd_cannot_read_is_refused(validates: bool) -> None:
    daemon = Dockerd()
    daemon.validates = validates
    with pytest.raises(EngineRefused) as caught:
        change(daemon, {"nosuch": 1})
    assert "/tmp" not in caught.value.words
    assert (daemon.up, daemon.containers, daemon.starts) == (True, 2, 0 if validates else 2)
    assert daemon.files == {CONFIG: "{}" if validates else daemon.files[CONFIG], ENV: ""}
    assert json.loads(daemon.files[CONFIG]) == {}


def test_what_dockerd_does_not_start_with_is_taken_back() -> None:
    daemon = Dockerd(mtu=1400)
    daemon.containers = 0
    with pytest.raises(EngineRefused, match="driver not supported: btrfs"):
        change(daemon, {"mtu": 1400, "storage-driver": "btrfs"}, "export A='1'\n")
    assert (daemon.up, daemon.config, daemon.environment, daemon.starts) == (True, {"mtu": 1400}, "", 2)
    assert daemon.files == {CONFIG: '{"mtu": 1400}', ENV: ""}


def test_a_system_that_chooses_the_storage_driver_itself_is_told() -> None:
    daemon = Dockerd()
    daemon.old_system, daemon.containers = True, 0
    with pytest.raises(MachineError, match="Docker uses the storage driver overlay2, not vfs") as caught:
        change(daemon, {"storage-driver": "vfs"})
    assert caught.value.hint == "machine upgrade dev"
    assert (json.loads(daemon.files[CONFIG]), daemon.starts) == ({}, 2)


def test_a_daemon_that_does_not_run_gets_settings_with_which_it_does() -> None:
    daemon = Dockerd(**{"storage-driver": "btrfs"})
    daemon.up, daemon.containers, daemon.log = False, 0, f"Daemon has completed initialization\n{BAD}\n"
    assert change(daemon, {}) is Outcome.RESTARTED
    assert daemon.up


def test_a_daemon_that_does_not_answer_may_have_containers() -> None:
    daemon = Dockerd()
    daemon.up, daemon.log = False, f"{BAD}\nDaemon has completed initialization\n"
    with pytest.raises(DockerFailed, match="nothing answers"):
        change(daemon, {"log-driver": "local"})
    assert (daemon.starts, daemon.files[CONFIG]) == (0, "{}")
    assert change(daemon, {"log-driver": "local"}, force=True) is Outcome.STOPPED_CONTAINERS


def test_the_moment_of_a_reload() -> None:
    assert reconfigure._seconds("2026-11-27T14:30:11.123456789Z") == "1795789811.123456789"
    assert reconfigure._seconds("2026-11-27T15:30:11+01:00") == "1795789811"
    assert reconfigure._seconds("soon") == "0"
