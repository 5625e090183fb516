"""Setting Docker up on the distributions, each against a transcript of its shell (tests/data/hosts)."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from fake_host import DATA, FakeHost, stand_in

from machine.docker import api, daemon, reconfigure
from machine.docker.reconfigure import Outcome
from machine.errors import EngineRefused, MachineError, SSHFailed, ToolFailed
from machine.guest import host_settings, provision
from machine.guest.steps import Steps
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.progress import Silent
from machine.spec import Address, Engine, Machine
from machine.tls import certs

ADDRESS = Address("192.0.2.7")
SYSTEMD = ("debian", "ubuntu", "mint", "fedora", "rocky", "amazon", "opensuse", "arch")
DROP_IN = "/etc/systemd/system/docker.service.d/machine.conf"


@pytest.fixture
def folder(store: Path) -> MachineFolder:
    folder = MachineFolder(store / "machines" / "far")
    folder.path.mkdir(parents=True)
    certs.renew_if_due(store / "certs", folder, names=["far"], addresses=[ADDRESS.host])
    return folder


@pytest.fixture
def machine() -> Machine:
    return Machine(
        *("far", "generic", "", "", "", 0, 0, 0),
        ssh_user="admin",
        engine=Engine(options=("log-driver=local",), environment=('A=b "c" 10% $d',)),
        options={"install_url": "", "ip_address": ADDRESS.host},
    )


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.Client, "ping", lambda _: True)


def provisioned(machine: Machine, folder: MachineFolder, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    stand_in(monkeypatch, host)
    return provision.provision(Instance(machine, folder), Silent())


@pytest.mark.parametrize("name", [path.stem for path in sorted(DATA.glob("*.txt"))])
def test_a_second_run_changes_nothing(
    name: str, machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(name)
    if name == "rocky":
        machine.options["install_url"] = "http://127.0.0.1/script"
    changed = provisioned(machine, folder, host, monkeypatch)
    assert changed[0] == "installed Docker"
    assert "started Docker with these settings" in changed
    assert "put admin into the group docker" in changed
    files, before = dict(host.files), len(host.ran)
    assert provisioned(machine, folder, host, monkeypatch) == []
    assert host.files == files
    again = host.ran[before:]
    assert not [command for command in again if "install" in command or "restart" in command or "write" in command]
    for path, source in (("ca", folder.ca), ("server", folder.server_cert), ("server-key", folder.server_key)):
        assert files[f"/etc/docker/tls/{path}.pem"] == source.read_text()
    assert "write /etc/docker/tls/server-key.pem 600" in host.ran
    assert json.loads(files["/etc/docker/daemon.json"]) == {
        "log-driver": "local",
        "labels": ["provider=generic"],
        "hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2375"],
        "live-restore": True,
        "tlsverify": True,
        "tlscacert": "/etc/docker/tls/ca.pem",
        "tlscert": "/etc/docker/tls/server.pem",
        "tlskey": "/etc/docker/tls/server-key.pem",
    }


@pytest.mark.parametrize("name", SYSTEMD)
def test_the_service_of_systemd_reads_daemon_json_only(
    name: str, machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(name)
    machine.options["install_url"] = "http://127.0.0.1/script" if name == "rocky" else ""
    provisioned(machine, folder, host, monkeypatch)
    lines = host.files[DROP_IN].splitlines()
    assert lines[:2] == ["[Service]", "ExecStart="]
    assert lines[2] in {"ExecStart=/usr/sbin/dockerd", "ExecStart=/usr/bin/dockerd"}
    assert lines[3] == 'Environment="A=b \\"c\\" 10%% $d"'


def test_openrc_keeps_what_stands_in_its_file(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost("alpine")
    host.files["/etc/conf.d/docker"] = "# mine\nrc_ulimit=1\n"
    provisioned(machine, folder, host, monkeypatch)
    assert host.files["/etc/conf.d/docker"] == (
        '# mine\nrc_ulimit=1\n# machine: begin\nDOCKER_OPTS=""\nexport A=\'b "c" 10% $d\'\n# machine: end\n'
    )
    assert provisioned(machine, folder, host, monkeypatch) == []


def test_settings_of_the_host_stay(machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    host = FakeHost("debian")
    host.files["/etc/docker/daemon.json"] = '{"mtu": 1400, "labels": ["a=b"], "hosts": ["fd://"], "log-driver": "none"}'
    provisioned(machine, folder, host, monkeypatch)
    found = json.loads(host.files["/etc/docker/daemon.json"])
    assert (found["mtu"], found["labels"], found["log-driver"]) == (1400, ["a=b", "provider=generic"], "local")
    assert found["hosts"] == ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2375"]
    host.files["/etc/docker/daemon.json"] = "{,}"
    with pytest.raises(MachineError, match=r"daemon\.json on the host isn't JSON"):
        provisioned(machine, folder, host, monkeypatch)


def test_a_failure_half_way_says_what_was_done_and_can_be_run_again(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost("debian")
    host.fails = "systemctl restart"
    with pytest.raises(ToolFailed) as caught:
        provisioned(machine, folder, host, monkeypatch)
    assert caught.value.message.startswith("starting Docker failed: ")
    assert "no route to the mirror" in caught.value.message
    assert "done before: installed Docker" in caught.value.details
    assert f"done before: wrote {DROP_IN}" in caught.value.details
    assert "repeat the command" in caught.value.hint
    host.fails = ""
    # Its files are right and a daemon runs, but not with these settings.
    assert provisioned(machine, folder, host, monkeypatch) == [
        "started Docker with these settings",
        "put admin into the group docker",
    ]


def test_a_failing_first_step_says_that_nothing_was_changed(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost("debian")
    host.fails = "apt-get -q -y update"
    with pytest.raises(ToolFailed, match="installing Docker failed") as caught:
        provisioned(machine, folder, host, monkeypatch)
    assert "nothing was changed before" in caught.value.details
    assert list(host.files) == ["/etc/os-release"]


def test_without_a_package_the_user_says_where_docker_is(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MachineError, match="has no package of Docker") as caught:
        provisioned(machine, folder, FakeHost("rocky"), monkeypatch)
    assert "--engine-install-url" in caught.value.hint


def test_new_certificates_restart_the_daemon_and_nothing_else(
    machine: Machine, folder: MachineFolder, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost("debian")
    provisioned(machine, folder, host, monkeypatch)
    provisioner = provision.find(Instance(machine, folder))
    before = len(host.ran)
    provisioner.send_certificates(Steps(Silent()))
    digest = [command for command in host.ran if "sha256sum" in command][-1]
    assert host.ran[before:] == [digest]
    before += 1
    certs.issue_server(store / "certs", folder, names=["far"], addresses=[ADDRESS.host])
    provisioner.send_certificates(Steps(Silent()))
    assert host.ran[before:] == [
        "write /etc/docker/tls/server.pem 600",
        "write /etc/docker/tls/server-key.pem 600",
        digest,
        "systemctl daemon-reload",
        "systemctl restart docker",
        digest,
        "write /var/lib/machine/applied 644",
    ]


@pytest.mark.parametrize("name", ["debian", "fedora", "amazon", "opensuse", "alpine"])
def test_an_upgrade_restarts_what_was_upgraded(
    name: str, machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost(name)
    stand_in(monkeypatch, host)
    assert provision.upgrade(Instance(machine, folder), Silent()) == ["Docker 27.3.1 -> 28.0.1"]
    assert "restart" in host.ran[-1]
    assert provision.upgrade(Instance(machine, folder), Silent()) == []


def test_without_tls(machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    host = FakeHost("debian")
    provisioned(replace(machine, tls=False), folder, host, monkeypatch)
    assert json.loads(host.files["/etc/docker/daemon.json"])["tlsverify"] is False
    assert not [path for path in host.files if path.endswith(".pem")]


def test_root_needs_no_group(machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    host = FakeHost("debian")
    provisioned(replace(machine, ssh_user="root"), folder, host, monkeypatch)
    assert not [command for command in host.ran if "usermod" in command]


def test_what_is_not_asked_for_any_more_goes_and_the_hosts_own_stays(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    host = FakeHost("debian")
    host.files["/etc/docker/daemon.json"] = '{"mtu": 1400, "dns": ["1.1.1.1"], "debug": true}'
    engine = Engine(options=("dns=9.9.9.9", "log-driver=local"), labels=("a=1",), registry_mirrors=("http://m",))
    provisioned(replace(machine, engine=engine), folder, host, monkeypatch)
    assert json.loads(host.files["/etc/docker/daemon.json"])["dns"] == ["1.1.1.1", "9.9.9.9"]
    provisioned(replace(machine, engine=Engine()), folder, host, monkeypatch)
    found = json.loads(host.files["/etc/docker/daemon.json"])
    assert (found["mtu"], found["dns"], found["debug"], found["labels"]) == (
        1400,
        ["1.1.1.1"],
        True,
        ["provider=generic"],
    )
    assert not {"log-driver", "registry-mirrors"} & found.keys()


def test_live_restore_can_be_switched_off(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    host = FakeHost("debian")
    provisioned(replace(machine, engine=Engine(options=("live-restore=false",))), folder, host, monkeypatch)
    assert json.loads(host.files["/etc/docker/daemon.json"])["live-restore"] is False


def test_dockerds_own_words_tell_why_it_does_not_start(
    machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = FakeHost("debian")
    host.fails = "systemctl restart"
    host.log = "level=info msg=starting\nfailed to start daemon: driver not supported: btrfs\ndocker.service: Failed\n"
    with pytest.raises(EngineRefused) as caught:
        provisioned(machine, folder, host, monkeypatch)
    assert caught.value.words == "failed to start daemon: driver not supported: btrfs"


class Client:
    """Of a daemon that reloads what it is told to."""

    containers = 0

    def __init__(self, *_: object) -> None:
        pass

    def ping(self) -> bool:
        return True

    def info(self) -> dict[str, object]:
        return {"SystemTime": "2026-11-27T14:30:11Z", "ContainersRunning": self.containers}

    def reloaded(self, since: str, within: int) -> bool:
        return True


@pytest.fixture
def debian(machine: Machine, folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A host that is set up."""
    host = FakeHost("debian")
    host.answers += [(RELOADS, 0, ""), (VALIDATES, 0, "")]
    host.answers += [
        (shlex.join(["sh", "-c", daemon.SYSTEMD.restart, "sh"]), 0, ""),
        ("sysctl -n vm.swappiness", 0, "60\n"),
    ]
    host.answers += [("sysctl -q -w ...", 0, "")]
    provisioned(machine, folder, host, monkeypatch)
    monkeypatch.setattr(api, "Client", Client)
    return host


VALIDATES = shlex.join(["sh", "-c", reconfigure._VALIDATE])
RELOADS = shlex.join(["sh", "-c", daemon.RELOAD, "sh"])


def test_a_host_takes_labels_by_a_reload(machine: Machine, folder: MachineFolder, debian: FakeHost) -> None:
    from dataclasses import replace

    target = replace(machine, engine=replace(machine.engine, labels=("a=1",)), hosts=("r.test=10.0.0.1",))
    assert provision.adjust(Instance(machine, folder), target, Silent(), force=False) is Outcome.RELOADED
    assert json.loads(debian.files["/etc/docker/daemon.json"])["labels"] == ["provider=generic", "a=1"]
    assert "10.0.0.1 r.test\n" in debian.files["/etc/hosts"]
    assert RELOADS in debian.ran
    # What was set is what the next look finds.
    provisioner = provision.find(Instance(target, folder))
    before = len(debian.ran)
    provisioner.provision(Steps(Silent()))
    assert not [command for command in debian.ran[before:] if "restart" in command or "write" in command]


def test_a_host_takes_a_proxy_by_a_restart(machine: Machine, folder: MachineFolder, debian: FakeHost) -> None:
    from dataclasses import replace

    target = replace(machine, engine=replace(machine.engine, environment=("HTTP_PROXY=http://p:1",)))
    assert provision.adjust(Instance(machine, folder), target, Silent(), force=False) is Outcome.RESTARTED
    assert 'Environment="HTTP_PROXY=http://p:1"' in debian.files[DROP_IN]
    assert RELOADS not in debian.ran


def test_a_host_that_refuses_one_setting_takes_none(machine: Machine, folder: MachineFolder, debian: FakeHost) -> None:
    from dataclasses import replace

    before = dict(debian.files)
    debian.answers.insert(0, (VALIDATES, 1, "unable to configure the Docker daemon with file x: nosuch"))
    target = replace(machine, engine=replace(machine.engine, options=("nosuch=1",)), sysctls=("vm.swappiness=10",))
    with pytest.raises(EngineRefused, match="nosuch"):
        provision.adjust(Instance(machine, folder), target, Silent(), force=False)
    assert debian.ran[-1] == "write /var/lib/machine/sysctl.before 644"
    assert "sysctl -q -w vm.swappiness=60" in debian.ran
    assert {path: text for path, text in debian.files.items() if text} == before


def test_what_cant_be_taken_back_doesnt_hide_why_it_should(
    machine: Machine, folder: MachineFolder, debian: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def settle(remote: object, asked: Machine, steps: object) -> None:
        if asked == machine:
            raise SSHFailed("the connection broke")

    monkeypatch.setattr(host_settings, "settle", settle)
    debian.answers.insert(0, (VALIDATES, 1, "unable to configure the Docker daemon with file x: nosuch"))
    target = replace(machine, engine=replace(machine.engine, options=("nosuch=1",)), sysctls=("vm.swappiness=10",))
    with pytest.raises(EngineRefused, match="nosuch"):
        provision.adjust(Instance(machine, folder), target, Silent(), force=False)
