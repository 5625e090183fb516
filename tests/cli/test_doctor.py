"""machine doctor: what it finds, and what --repair does about it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
import spellings
from fake_host import FakeHost, stand_in
from filelock import FileLock
from machine.drivers.qemu import failures

from machine import doctor, orphans, registry, store, wait
from machine.docker import api
from machine.driver import Orphan
from machine.errors import DriverFailed, SSHFailed, ToolFailed
from machine.folders import mount_spec
from machine.guest import checks, credentials
from machine.images import cache
from machine.instance import Instance
from machine.paths import Image, MachineFolder
from machine.run import Completed
from machine.tls import certs
from tests.fixture_types import Add, Invoke, Made

DISK = "/dev/vda 10 5 5 {used}% /var/lib/docker"


class Guest:
    """What a look into a machine prints."""

    def __init__(self) -> None:
        self.skew = 0.0
        self.used = 12
        self.names = "answers"
        self.set: list[str] = []

    def run(self, argv: list[str], **_: object) -> Completed:
        if argv[0] == "date":
            self.set.append(argv[-1])
            return Completed(argv, 0, "", "")
        lines = [f"{time.time() + self.skew:.0f}", DISK.format(used=self.used), self.names]
        return Completed(argv, 0, "\n".join(lines) + "\n", "")


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Guest:
    inner = Guest()
    stand_in(monkeypatch, inner)
    monkeypatch.setattr(api.Client, "version", lambda _: "28.5.1")
    return inner


class Findings(Protocol):
    """The findings that aren't fine, by their text, and with all=True the others too."""

    def __call__(self, *words: str, all: bool = False) -> dict[str, dict[str, Any]]: ...


class Lose(Protocol):
    """Make the fake's hypervisor remember a machine; returns the UUIDs of those that were removed."""

    def __call__(self, name: str = "gone", uuid: str = "u-1", *, sure: bool = True) -> list[str]: ...


@pytest.fixture
def found(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> Findings:
    def look(*words: str, all: bool = False) -> dict[str, dict[str, Any]]:
        ended = invoke("doctor", "--json", *words)
        return {one["text"]: one for one in json.loads(ended.out) if all or one["level"] != "ok"}

    monkeypatch.setattr("machine.cli.driver_options.default_driver", lambda: "fake")
    monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/local/bin")
    return look


@pytest.fixture
def made(add: Add) -> Made:
    def make(name: str = "default", **fields: Any) -> MachineFolder:
        machine = add(name, uuid=name, **fields)
        folder = store.folder_of(name)
        folder.path.chmod(0o700)
        credentials.prepare(Instance(machine, folder).driver)
        return folder

    return make


def test_nothing_is_wrong(found: Findings, made: Made, guest: Guest, invoke: Invoke) -> None:
    made()
    made("web", state="Running")
    said = found(all=True)
    assert {one["check"] for one in said.values()} >= {"tools", "drivers", "images", "store", "space", "certificates"}
    assert [text for text, one in said.items() if one["check"] == "web"] == [
        "Docker 28.5.1 answers on tcp://127.77.0.3:2375",
        "its clock is right",
        "its disk is 12 % full",
        "its name server answers",
    ]
    assert set(found()) == {"fake: a note of the fake"}
    ended = invoke("doctor", "-q")
    assert (ended.code, ended.lines) == (0, ["warning   drivers: fake: a note of the fake"])


def test_a_clock_that_is_off_is_set(found: Findings, made: Made, guest: Guest) -> None:
    made(state="Running")
    guest.skew = -3600
    assert "its clock is 3" in next(text for text in found() if "clock" in text)
    repaired = next(one for one in found("--repair").values() if "slow" in one["text"])
    assert (repaired["repaired"], repaired["hint"]) == (True, "")
    assert abs(float(guest.set[0].removeprefix("@")) - time.time()) < 600


def test_inside_a_machine(found: Findings, made: Made, guest: Guest) -> None:
    made(state="Running")
    guest.used, guest.names = 97, "dead"
    said = found()
    assert said["its disk is 97 % full"]["hint"] == "machine ssh default docker system prune"
    assert said["its name server doesn't answer"]["level"] == "error"


def test_a_machine_that_doesnt_let_us_in(
    found: Findings, made: Made, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(state="Running")

    def fail(*_: object, **__: object) -> Completed:
        raise SSHFailed("no SSH connection", hint="machine status default")

    monkeypatch.setattr(guest, "run", fail)
    assert found()["no SSH connection"]["level"] == "error"


def test_what_others_can_read_is_closed(found: Findings, made: Made) -> None:
    folder = made()
    folder.key.chmod(0o640)
    text = f"others can read {folder.key}"
    assert found()[text]["hint"] == f"chmod go= {folder.key}"
    assert found("--repair")[text]["repaired"]
    assert folder.key.stat().st_mode & 0o777 == 0o600
    assert text not in found()


def test_certificates(found: Findings, made: Made, monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    folder = made()
    shutil.copy(folder.cert, folder.server_cert)
    text = "default: its certificate is damaged, of another CA, or for other names"
    assert found()[text]["hint"] == "machine regenerate-certs default"
    assert invoke("doctor").code == 1
    assert found("--repair")[text]["repaired"]
    assert text not in found()


def test_a_url_where_nothing_answers_has_no_logs(invoke: Invoke, vms: Path) -> None:
    assert invoke("create", "--driver", "none", "--url", "tcp://127.0.0.1:1", "far").code == 0
    shown = invoke("doctor", "--json").out
    (found,) = [finding for finding in json.loads(shown) if finding["check"] == "far"]
    assert "doesn't answer" in found["text"]
    assert "machine logs" not in found["hint"]


def test_a_container_that_binds_what_isnt_shared(
    invoke: Invoke, made: Made, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an empty folder in place of the user's; the machine's own folders, and volumes, are no mistake."""
    shared, beside = tmp_path / "shared", tmp_path / "beside"
    for folder in (shared, beside):
        folder.mkdir()
    made("dev", state="Running")
    fake = registry.load("fake")
    monkeypatch.setattr(fake, "mounts", lambda _: mount_spec.mounts([str(shared)]))
    sources = [f"{shared}/a", str(beside), "/var/run/docker.sock", "/home/docker/x", f"{tmp_path}/only in the machine"]
    mounts = [*({"Type": "bind", "Source": source} for source in sources), {"Type": "volume", "Source": str(beside)}]
    monkeypatch.setattr(api.Client, "containers", lambda _: [{"Names": ["/web"], "Mounts": mounts}, {"Names": []}])
    shown = invoke("doctor").out
    assert f"the container web has bound {beside}, which the machine doesn't share" in shown
    assert shown.count("has bound") == 1


def test_a_running_machine_gets_the_repaired_certificate(
    found: Findings, made: Made, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(state="Running")
    host = FakeHost("machineos")
    stand_in(monkeypatch, host)
    monkeypatch.setattr(checks, "look", lambda *_: iter(()))
    folder.server_key.write_text("")
    found("--repair")
    assert host.applied["tls/server-key.pem"] == folder.server_key.read_text() != ""


def test_a_client_certificate_that_ends(found: Findings, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made()
    soon = datetime.now(UTC) + timedelta(days=9, hours=1)
    monkeypatch.setattr(certs, "ends", lambda path: soon if path == folder.cert else None)
    told = next(one for text, one in found("--repair").items() if "cert.pem expires in 9 days" in text)
    assert not told["repaired"]
    assert told["hint"] == "machine regenerate-certs --client-certs default"


@contextlib.contextmanager
def process(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *words]) as process:
        try:
            # For a moment a new process has no command line.
            wait.until(lambda: "-pidfile" in psutil.Process(process.pid).cmdline(), timeout=60, what="the process")
            yield process
        finally:
            process.kill()


@pytest.fixture
def orphan(store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A hypervisor whose machine is gone."""
    with process("-pidfile", f"{store}/machines/gone/qemu.pid") as one:
        yield one


def test_an_orphan_is_ended(found: Findings, orphan: subprocess.Popen[bytes], store: Path) -> None:
    text = f"processes of a machine gone that doesn't exist: {orphan.pid}"
    assert found()[text]["hint"] == f"kill {orphan.pid}"
    (store / "machines" / "gone").mkdir(parents=True)
    (store / "machines" / "gone" / "keep").touch()
    assert found()[text]["hint"] == "machine rm -f gone", "its folder is left, too"
    (store / "machines" / "gone" / "machine.json").write_text("{")
    assert text not in found(), "a machine whose file can't be read is there"
    shutil.rmtree(store / "machines" / "gone")
    assert found("--repair")[text]["repaired"]
    assert not psutil.pid_exists(orphan.pid)


@pytest.mark.parametrize("spelling", spellings.ALL)
@pytest.mark.parametrize("was_made_so", [True, False])
def test_orphans_of_a_store_by_another_way(
    store: Path, spelling: spellings.Spell, was_made_so: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "machines").mkdir()
    other = Path(spelling(store)).absolute()
    if not was_made_so:
        monkeypatch.setenv("MACHINE_STORAGE_PATH", str(other))
    gone = (other if was_made_so else store) / "machines" / "gone"
    with process("-uuid", "u-1", "-pidfile", gone / "qemu.pid") as qemu:
        assert [one.hint for one in orphans.processes()] == [f"kill {qemu.pid}"]


def test_a_process_of_a_known_uuid_is_no_orphan(store: Path, add: Add) -> None:
    """Somebody has renamed the folder; the same name alone doesn't make it the machine's."""
    add("new", uuid="u-1")
    add("dev", uuid="u-3")
    folder = store / "machines"
    with process("-uuid", "u-1", "-pidfile", folder / "old" / "qemu.pid"):
        assert list(orphans.processes()) == []
    with process("-uuid", "u-2", "-pidfile", folder / "dev" / "qemu.pid") as earlier:
        assert [one.text for one in orphans.processes()] == [
            f"processes of a machine dev that doesn't exist: {earlier.pid}"
        ]
        (folder / "dev" / "machine.json").write_text("{")
        assert list(orphans.processes()) == [], "its UUID may be just that"


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Lose:
    def lose(name: str = "gone", uuid: str = "u-1", *, sure: bool = True) -> list[str]:
        removed: list[str] = []
        take = (lambda: removed.append(uuid)) if sure else None
        orphan = Orphan(name, uuid, f"the VM {name}", take, hint="" if sure else "fakectl rm")
        monkeypatch.setattr(registry.load("fake"), "orphans", lambda *_: [] if removed else [orphan])
        return removed

    return lose


LOST = "fake: the VM gone: no machine in the store uses it"


def test_a_virtual_machine_that_is_left(found: Findings, lost: Lose, store: Path) -> None:
    removed = lost()
    assert (found()[LOST]["level"], found()[LOST]["hint"]) == ("error", "machine doctor --repair")
    # Only the record is gone: the rest of the folder would keep the name from being used again.
    (store / "machines" / "gone").mkdir(parents=True)
    (store / "machines" / "gone" / "id_ed25519").touch()
    assert removed == []
    assert found("--repair")[LOST]["repaired"]
    assert removed == ["u-1"]
    assert not (store / "machines" / "gone").exists()
    assert LOST not in found()


@pytest.mark.parametrize("file", ["machine.json", "creating.json"])
def test_a_virtual_machine_that_a_machine_has(found: Findings, lost: Lose, made: Made, file: str) -> None:
    folder = made("gone")
    removed = lost(uuid="gone")
    folder.config.rename(folder / file)
    # create is at work on it: it holds the lock
    with FileLock(folder.lock):
        assert LOST not in found("--repair")
    assert removed == []


def test_a_virtual_machine_of_one_that_cant_be_read(found: Findings, lost: Lose, made: Made) -> None:
    removed = lost(uuid="u-1")
    made("gone").config.write_text("{")
    assert LOST not in found("--repair"), "its UUID may be just that"
    assert removed == []


def test_a_new_machine_of_the_same_name_stays(found: Findings, lost: Lose, made: Made) -> None:
    folder = made("gone")
    removed = lost(uuid="u-1")
    assert found("--repair")[LOST]["repaired"]
    assert (removed, folder.config.exists()) == (["u-1"], True)


def test_what_isnt_sure_to_be_ours_is_only_told(found: Findings, lost: Lose) -> None:
    lost(name="", sure=False)
    told = found("--repair")["fake: the VM : no machine in the store uses it"]
    assert (told["level"], told["hint"], told["repaired"]) == ("warning", "fakectl rm", False)


def test_a_hypervisor_that_doesnt_answer_or_fails(found: Findings, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = registry.load("fake")
    monkeypatch.setattr(doctor, "ORPHANS_TIMEOUT", 0.2)
    answers = threading.Event()
    monkeypatch.setattr(fake, "orphans", lambda *_: answers.wait(300) and [])
    assert "fake didn't list its virtual machines within 0.2 s" in found()
    answers.set()

    def fail(*_: object) -> list[Orphan]:
        raise DriverFailed("it is on strike")

    monkeypatch.setattr(fake, "orphans", fail)
    assert not [text for text in found() if "strike" in text or "doesn't tell" in text]


def test_a_record_that_came_back_meanwhile(lost: Lose, made: Made, vms: Path) -> None:
    removed = lost(uuid="gone")
    (left,) = list(orphans.in_hypervisors(10))
    made("gone")
    assert left.repair
    left.repair()
    assert removed == []


def test_images(found: Findings, add: Add, vms: Path) -> None:
    digest = cache.current("machineos").digest
    add(image=digest)
    Image(digest).file.write_bytes(b"changed")
    said = next(one for one in found().values() if one["check"] == "images")
    assert "and the machine default boots it" in said["text"]
    assert said["level"] == "error"
    shutil.rmtree(Image(digest).folder)
    assert any("isn't in the cache" in text for text in found())


def test_a_template_that_failed(found: Findings, store: Path) -> None:
    folder = store / "templates"
    folder.mkdir()
    recipe = {"image": "d" * 64, "cpus": 2, "base_mib": 512, "accelerator": "tcg"}
    failures.remember(folder, "key", recipe, "timed out")
    text = "machines boot cold without the template key (dddddddddddd, 2 cpus, 512 MiB, tcg): timed out"
    assert found()[text]["hint"] == "machine template rm key"
    failures.forget(folder, "key")
    assert "no template has failed" in found(all=True)


def test_a_machine_that_cannot_be_read_hides_no_other(found: Findings, made: Made, guest: Guest) -> None:
    made("good", state="Running")
    made("bad").config.write_text("{")
    said = found(all=True)
    assert any("bad/machine.json is damaged" in text for text in said)
    assert "Docker 28.5.1 answers on tcp://127.77.0.2:2375" in said


def test_a_driver_that_fails(found: Findings, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made()

    def fail(_: object) -> None:
        raise DriverFailed("the hypervisor is on strike", hint="pay it")

    monkeypatch.setattr(registry.load("fake"), "state", fail)
    assert found()["the hypervisor is on strike"]["hint"] == "pay it"


def test_a_shell_that_is_set_to_a_machine_of_the_past(
    found: Findings, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    add()
    monkeypatch.setenv("DOCKER_MACHINE_NAME", "default")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.77.0.2:2375")
    assert not any("docker client is set" in text for text in found())
    monkeypatch.setenv("DOCKER_MACHINE_NAME", "gone")
    assert next(one for one in found().values() if one["check"] == "client")["hint"] == 'eval "$(machine env -u)"'


def test_a_repair_that_fails_is_told_and_stays_wrong(
    invoke: Invoke, found: Findings, made: Made, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(state="Running")
    guest.skew = 60

    def fail(_: object) -> None:
        raise ToolFailed(["date"], 1, "not permitted")

    monkeypatch.setattr(checks, "set_clock", fail)
    ended = invoke("doctor", "--repair")
    assert (ended.code, "that can't be repaired: date failed: not permitted" in ended.err) == (1, True)


def test_the_real_look(reachable: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this host, through a real SSH server, without a question to a name server."""
    folder = reachable()
    monkeypatch.setattr(checks, "_SCRIPT", checks._SCRIPT.replace("command -v nslookup", "false"))
    machine = store.load("default")
    assert machine.address
    said = {finding.text: finding.level for finding in checks.look("default", Instance(machine, folder).shell())}
    assert said["its clock is right"] == "ok"
    assert said["its name server wasn't tested: it has no nslookup"] == "ok"
    assert any("full" in text for text in said)


def test_an_existing_host_needs_no_tool(
    found: Findings, add: Add, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("there", driver="none", tls=False, address=None, options={"url": "tcp://192.0.2.1:2375"})
    said = found(all=True)
    assert said["Docker 28.5.1 answers on tcp://192.0.2.1:2375"]["level"] == "ok"
    assert not [one for one in said.values() if one["level"] == "error" and one["check"] in {"drivers", "there"}]


def test_a_variable_that_takes_the_trust_away(
    invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "company.pem"))
    assert "REQUESTS_CA_BUNDLE" not in invoke("doctor").out, "without a machine there is nothing to trust"
    invoke("create", "dev")
    assert "client: REQUESTS_CA_BUNDLE is set: Python clients" in invoke("doctor").out


def test_loopback_aliases_are_a_choice_on_macos_only(store: Path) -> None:
    assert list(doctor.loopback_aliases("linux", lambda: {"127.0.0.1"})) == []
    [choice] = doctor.loopback_aliases("darwin", lambda: {"127.0.0.1", "192.0.2.1"})
    assert (choice.level, "share 127.0.0.1" in choice.text) == ("ok", True)
    assert "ifconfig lo0 alias 127.77." in choice.hint
    [there] = doctor.loopback_aliases("darwin", lambda: {"127.0.0.1", "127.77.9.2", "127.77.9.3"})
    assert "2 aliases on lo0" in there.text
    assert there.hint == ""
