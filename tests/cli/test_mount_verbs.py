"""mount add, ls, rm: the folders of a machine that is there; and the form of docker-machine beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_fixtures import vm_of

from machine import registry, store, transfer
from machine.docker import api
from machine.driver import State
from machine.guest import seed
from machine.guest.seed import Mount
from machine.paths import MachineFolder
from machine.run import Completed
from machine.ssh.remote import Shell
from tests.fixture_types import Invoke


class Guest:
    """It mounts what stands in its list, as machineos does; refuses: paths that it can't mount, or not unmount."""

    def __init__(self) -> None:
        self.list = ""
        self.mounted: set[str] = set()
        self.refuses: set[str] = set()
        self.code = 0

    def run(self, _: Shell, argv: Sequence[str], **__: object) -> Completed:
        if argv[0] == "sh" and len(argv) == 6:
            if self.code:
                return Completed([], self.code, "", "")
            new, self.list = argv[4:]
            wanted = {line.split()[1] for line in new.splitlines()}
            self.mounted |= {path for path in wanted if path not in self.refuses}
            return Completed([], 0, self.table(), "mount: no such file")
        if "umount" in argv:
            path = argv[-1].replace(" ", "\\040")
            if path in self.refuses and "-l" not in argv:
                return Completed([], 1, "", "umount: busy")
            self.mounted.discard(path)
            return Completed([], 0, "", "")
        raise AssertionError(argv)

    def table(self) -> str:
        return "proc /proc proc rw 0 0\n" + "".join(f"10.0.2.100:{path} {path} nfs rw 0 0\n" for path in self.mounted)

    def read(self, _: Shell, path: str) -> str:
        assert path == "/proc/mounts"
        return self.table()

    def write(self, _: Shell, path: str, text: str, mode: int) -> None:
        assert (path, mode) == ("/run/machineos/mounts", 0o600)
        self.list = text


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, dev: MachineFolder) -> Guest:
    """Of the running machine dev, which shares nothing yet."""
    guest = Guest()
    fake = registry.load("fake")
    monkeypatch.setattr(fake, "shares", True)
    monkeypatch.setattr(fake, "mounts", registry.load("qemu").mounts)
    for name in ("run", "read", "write"):
        method = getattr(guest, name)
        monkeypatch.setattr(Shell, name, lambda *words, method=method, **more: method(*words, **more))
    containers(monkeypatch)
    return guest


def containers(monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """What runs in the machine: a container's name, and the folder of the machine that it has."""
    found = [{"Names": [f"/{name}"], "Mounts": [{"Source": source}]} for name, source in sources.items()]
    monkeypatch.setattr(api.Client, "containers", lambda _: found)


def test_a_running_machine_has_it_at_once(invoke: Invoke, guest: Guest, dev: MachineFolder, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    shown = invoke("mount", "add", "dev", f"{tmp_path}/a b", f"{tmp_path}:/src:ro")
    assert shown.code == 0, shown.err
    assert shown.out == f'Machine "dev": {tmp_path}/a b, /src are in the machine now.\n'
    assert store.load("dev").mounts == (f"{tmp_path}/a b", f"{tmp_path}:/src:ro")
    assert guest.mounted == {f"{tmp_path}/a\\040b", "/src"}
    assert seed.read(dev.seed)["machineos/mounts"] == guest.list
    assert invoke("mount", "add", "dev", f"{tmp_path}:/src:ro").out == 'Machine "dev": It has that already.\n'
    shown = invoke("mount", "rm", "dev", "/src/", f"{tmp_path}/a b")
    assert shown.out == f'Machine "dev": /src, {tmp_path}/a b are in the machine no more.\n', shown.err
    assert (guest.mounted, guest.list, store.load("dev").mounts) == (set(), "", ())
    assert "machineos/mounts" not in seed.read(dev.seed)


def test_a_stopped_one_has_it_at_its_next_start(invoke: Invoke, guest: Guest, tmp_path: Path) -> None:
    invoke("stop", "dev")
    assert "at its next start: machine start dev" in invoke("mount", "add", "dev", str(tmp_path)).out
    assert (store.load("dev").mounts, guest.mounted) == ((str(tmp_path),), set())
    assert invoke("mount", "rm", "dev", str(tmp_path)).code == 0
    assert store.load("dev").mounts == ()


@pytest.mark.parametrize("state", [State.SAVED, State.PAUSED, State.ERROR])
def test_one_that_isnt_up_or_off_is_left_alone(
    invoke: Invoke, guest: Guest, dev: MachineFolder, tmp_path: Path, state: State
) -> None:
    invoke("mount", "add", "dev", str(tmp_path))
    vm_of(dev).write_text(state)
    for words in (("add", "dev", f"{tmp_path}:/src"), ("rm", "dev", str(tmp_path))):
        shown = invoke("mount", *words)
        assert (shown.code, "machine start dev" in shown.err) == (1, True)
    assert store.load("dev").mounts == (str(tmp_path),)


def test_what_the_guest_doesnt_mount_isnt_kept(
    invoke: Invoke, guest: Guest, dev: MachineFolder, tmp_path: Path
) -> None:
    guest.refuses = {"/src"}
    shown = invoke("mount", "add", "dev", str(tmp_path), f"{tmp_path}:/src")
    assert (shown.code, "the machine couldn't mount /src" in shown.err) == (1, True)
    assert (store.load("dev").mounts, guest.mounted, guest.list) == ((), set(), "")
    assert "machineos/mounts" not in seed.read(dev.seed)
    guest.code = 75
    assert "machine upgrade dev" in invoke("mount", "add", "dev", str(tmp_path)).err
    assert store.load("dev").mounts == ()


def test_where_the_machines_helper_mounts_them(
    invoke: Invoke, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for; and what it can't mount isn't kept."""
    fake = registry.load("fake")
    failed: dict[str, str] = {}
    monkeypatch.setattr(fake, "relays_folders", True)
    monkeypatch.setattr(fake, "unmounted", lambda driver, timeout=0.0: failed)
    shown = invoke("mount", "add", "dev", str(tmp_path))
    assert shown.out == f'Machine "dev": {tmp_path} is in the machine now.\n', shown.err
    assert (store.load("dev").mounts, guest.mounted) == ((str(tmp_path),), set())
    failed["/src"] = "the guest's kernel has no NFS client"
    guest.mounted.add("/other")
    shown = invoke("mount", "add", "dev", f"{tmp_path}:/src", f"{tmp_path}:/other")
    assert (shown.code, "no NFS client" in shown.err) == (1, True)
    assert (store.load("dev").mounts, guest.mounted) == ((str(tmp_path),), set())
    assert guest.list.startswith(f"127.0.0.1:{tmp_path} {tmp_path} relayed ")
    assert f"{tmp_path} is not in the machine" not in invoke("restart", "dev").err
    failed[str(tmp_path)] = "it is late"
    assert f"{tmp_path} is not in the machine: it is late" in invoke("restart", "dev").err


def test_a_cloud_image_has_no_list_of_folders(
    invoke: Invoke, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = registry.load("fake")
    monkeypatch.setattr(fake, "relays_folders", True)
    monkeypatch.setattr(fake, "unmounted", lambda driver, timeout=0.0: {})
    monkeypatch.setattr("machine.images.cache.is_cloud_image", lambda _: True)
    assert invoke("mount", "add", "dev", str(tmp_path)).code == 0
    assert store.load("dev").mounts == (str(tmp_path),)
    assert invoke("mount", "rm", "dev", str(tmp_path)).code == 0
    assert (store.load("dev").mounts, guest.list) == ((), "")


def test_where_the_guest_shares_our_kernel(
    invoke: Invoke, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver puts the folder into /mnt/host first, and takes it away last; the guest binds it."""
    fake = registry.load("fake")
    reached: list[tuple[tuple[str, ...], set[str]]] = []
    monkeypatch.setattr(fake, "binds_folders", True)
    monkeypatch.setattr(fake, "update_folders", lambda it: reached.append((it.machine.mounts, set(guest.mounted))))
    monkeypatch.setattr(guest, "table", lambda: "".join(f"/dev/vda {path} ext4 rw 0 0\n" for path in guest.mounted))
    shown = invoke("mount", "add", "dev", f"{tmp_path}:/src")
    assert shown.out == 'Machine "dev": /src is in the machine now.\n', shown.err
    assert re.fullmatch(r"/mnt/host/[0-9a-f]{16} /src bound rbind\n", guest.list)
    assert invoke("mount", "rm", "dev", "/src").code == 0
    assert reached == [((f"{tmp_path}:/src",), set()), ((), set())]
    guest.refuses = {"/src"}
    assert invoke("mount", "add", "dev", f"{tmp_path}:/src").code == 1
    assert reached[-1] == ((), set()), "what the guest doesn't bind is taken back"


def test_one_that_was_started_by_an_earlier_version_has_it_after_a_restart(
    invoke: Invoke, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.load("fake"), "can_mount", lambda _: False)
    assert "machine restart dev" in invoke("mount", "add", "dev", str(tmp_path)).out
    assert (store.load("dev").mounts, guest.mounted) == ((str(tmp_path),), set())


def test_what_a_container_uses_stays(
    invoke: Invoke, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoke("mount", "add", "dev", f"{tmp_path}:/src")
    containers(monkeypatch, web="/src/site", db="/var/lib", all="/")
    shown = invoke("mount", "rm", "dev", "/src")
    assert (shown.code, "containers use it: all, web" in shown.err) == (1, True)
    assert "machine mount rm --force dev /src" in shown.err
    assert guest.mounted == {"/src"}
    containers(monkeypatch)
    guest.refuses = {"/src"}
    shown = invoke("mount", "rm", "dev", "/src")
    assert (shown.code, "/src is in use in the machine" in shown.err) == (1, True)
    assert store.load("dev").mounts == (f"{tmp_path}:/src",)
    containers(monkeypatch, web="/src/site")
    assert invoke("mount", "rm", "--force", "dev", "/src").code == 0
    assert (guest.mounted, store.load("dev").mounts) == (set(), ())


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["src"], 2, '"src" is not an absolute path'),
        (["{0}/in"], 2, "{0}/in lies in {0}, which is shared, too"),
        (["{0}/in:/src"], 2, "/src/in lies in /src, which is shared, too"),
        (["{0}:/src/in:ro"], 2, "/src/in is given twice"),
        (["{0}:/etc"], 2, "needs itself"),
        (["{0}/none:/none"], 3, "none can't be shared"),
        (["{0}/keys:/store"], 3, "lies in the store"),
    ],
)
def test_it_is_checked_as_by_create(
    invoke: Invoke, guest: Guest, tmp_path: Path, given: list[str], code: int, said: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "keys").symlink_to(store.folder())
    gone = tmp_path / "gone"
    gone.mkdir()
    has = (str(tmp_path), f"{gone}:/src/in")
    assert invoke("mount", "add", "dev", *has).code == 0
    gone.rmdir()
    shown = invoke("mount", "add", "dev", *(text.format(tmp_path) for text in given))
    assert (shown.code, said.format(tmp_path) in shown.err) == (code, True), shown.err
    assert "machine create" not in shown.err
    assert store.load("dev").mounts == has


def test_drivers_and_systems_without_it_say_so(
    invoke: Invoke, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = registry.load("fake")
    monkeypatch.setattr(fake, "shares", False)
    shown = invoke("mount", "add", "dev", str(tmp_path))
    assert (shown.code, "the driver fake can't" in shown.err, "machine scp -r" in shown.err) == (3, True, True)
    monkeypatch.setattr(fake, "mounts", lambda _: (Mount("home", "/home/ann", "vboxsf"),))
    assert "it has /home/ann" in invoke("mount", "add", "dev", str(tmp_path)).err


def test_a_folder_that_isnt_there_cant_be_removed(invoke: Invoke, guest: Guest, tmp_path: Path) -> None:
    shown = invoke("mount", "rm", "dev", str(tmp_path))
    assert (shown.code, "machine mount ls dev" in shown.err) == (2, True)


def test_they_are_listed(invoke: Invoke, guest: Guest, tmp_path: Path) -> None:
    invoke("mount", "add", "dev", str(tmp_path), f"{tmp_path}:/src:ro")
    assert [re.split("  +", line) for line in invoke("mount", "ls").out.splitlines()] == [
        ["MACHINE", "FOLDER HERE", "PATH IN THE MACHINE", "ACCESS"],
        ["dev", str(tmp_path), str(tmp_path), "rw"],
        ["dev", str(tmp_path), "/src", "ro"],
    ]
    assert invoke("mount", "ls", "dev", "-f", "{{.Target}} {{.Access}}").out == f"{tmp_path} rw\n/src ro\n"
    assert json.loads(invoke("mount", "ls", "dev", "--json").out)[1] == {
        "machine": "dev",
        "source": str(tmp_path),
        "target": "/src",
        "read_only": True,
    }
    assert invoke("mount", "ls", "absent").code == 1
    assert invoke("mount", "ls", "--json", "-f", "x").code == 2
    assert "Nothing" in invoke("mount", "ls", "-f", "{{.Nothing}}").err


@pytest.mark.parametrize("name", ["add", "ls", "rm", "dev2"])
def test_a_colon_means_a_folder_of_the_machine(
    invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(transfer, "mount", lambda place, point: seen.append((place.machine, place.path, point)))
    monkeypatch.setattr(transfer, "unmount", seen.append)
    invoke("create", "-q", name, "default")
    assert invoke("mount", f"{name}:/x", "here").code == 0
    assert invoke("mount", f"{name}:/x").code == 0
    assert invoke("mount", "/x", "here").code == 0
    for words in (["-u", name], ["--unmount", name], [name, "-u"], [f"{name}:/x", name, "-u"]):
        assert invoke("mount", *words).code == 0, words
    assert (
        seen
        == [(name, "/x", Path("here")), (name, "/x", Path("/x")), ("default", "/x", Path("here"))] + [Path(name)] * 4
    )


def test_help_tells_the_two_apart(invoke: Invoke) -> None:
    shown = invoke("mount", "--help").out
    assert "machine mount add NAME DIR" in shown
    assert "machine mount NAME:PATH DIR" in shown
    assert "Usage: machine mount [OPTIONS] [MACHINE:]PATH [MOUNTPOINT]" in invoke("mount", "dev:/x", "--help").out
    assert "machine mount --help" in invoke("mount", "dev:/x", "a", "b").err
