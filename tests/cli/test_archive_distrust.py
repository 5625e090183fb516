"""`machine import` of archives that somebody crafted: each is refused, and leaves nothing; or asks first."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import machine_fake
import pytest
from archives import Crafted, apart, tar
from disk_files import qcow2, vdi
from hypothesis import given, settings
from hypothesis import strategies as st
from machine.drivers.qemu import Qemu
from machine.drivers.virtualbox import VirtualBox
from tiny_iso import ABOUT, iso

from machine import registry, run, store
from machine.archive import unpack
from machine.errors import NoSuchImage
from machine.images import cache, disks, machineos
from machine.paths import Image
from machine.spec import Machine
from tests.fixture_types import Invoke, Outcome
from tests.testbed import in_terminal

SECRET = "what a stranger wants to read"
# Made once, by the first test that needs it.
GOOD: list[bytes] = []


@pytest.fixture
def crafted(invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crafted:
    """The archive of a machine, taken apart; the store is another one, and empty."""
    if not GOOD:
        machineos.add(iso(tmp_path / "machineos.iso"))
        assert invoke("create", "-q", "dev").code == 0
        (store.folder_of("dev") / "disk.qcow2").write_bytes(qcow2())
        assert invoke("stop", "-q", "dev").code == 0
        assert invoke("export", "-q", "dev", tmp_path / "f").code == 0
        GOOD.append((tmp_path / "f").read_bytes())
    monkeypatch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "elsewhere"))
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    return apart(GOOD[0])


class Bring(Protocol):
    """Import what was crafted."""

    def __call__(self, crafted: Crafted | bytes, *words: str) -> Outcome: ...


@pytest.fixture
def bring(invoke: Invoke, tmp_path: Path) -> Bring:
    def bring(crafted: Crafted | bytes, *words: str) -> Outcome:
        raw = crafted if isinstance(crafted, bytes) else crafted.raw()
        (tmp_path / "g").write_bytes(raw)
        return invoke("import", "-q", *words, tmp_path / "g")

    return bring


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """With drivers that run here, and nothing that they would run: the commands that they tried to."""
    commands: list[list[str]] = []

    def record(argv: Any, **_: object) -> run.Completed:
        commands.append([str(word) for word in argv])
        return run.Completed(commands[-1], 0, "", "")

    for kind in (Qemu, VirtualBox):
        monkeypatch.setattr(kind, "check", lambda self: [])
        monkeypatch.setattr(kind, "create", lambda self: None)
        monkeypatch.setattr(kind, "remove", lambda self: None)
    monkeypatch.setattr("machine.run.run", record)
    monkeypatch.setattr("machine.drivers.virtualbox.vboxmanage.find", lambda: "VBoxManage")
    return commands


def member(kind: bytes, link: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = kind, link

    return change


def beside(name: str, content: bytes = b"x") -> Callable[[Crafted], None]:
    return lambda crafted: crafted.files.update({name: content})


def kind(type: bytes, link: str = "") -> Callable[[Crafted], None]:
    return lambda crafted: crafted.headers.update({"home/disk.qcow2": member(type, link)})


def fields(**fields: object) -> Callable[[Crafted], None]:
    return lambda crafted: crafted.machine(**fields)


def options(**options: object) -> Callable[[Crafted], None]:
    return lambda crafted: crafted.options(**options)


def about(**about: object) -> Callable[[Crafted], None]:
    return lambda crafted: crafted.about.update(about)


def engine(**words: object) -> Callable[[Crafted], None]:
    return lambda crafted: crafted.about["machine"]["engine"].update(words)


CRAFTED: dict[str, Callable[[Crafted], object]] = {
    # members that no export writes
    "a name that climbs": beside("home/../../evil"),
    "an absolute name": beside("/tmp/evil"),
    "a name of Windows": beside("home/..\\evil"),
    "a hidden file": beside("home/.evil"),
    "the record itself": beside("home/machine.json", b"{}"),
    "the record of a create": beside("home/creating.json", b"{}"),
    "a template of another store": beside("home/clone-of", b"/tmp/evil"),
    "a saved memory": beside("home/suspended"),
    "the layout of a saved memory": beside("home/suspended.json", b"{}"),
    "settings of ssh": beside("home/ssh_config", b"ProxyCommand evil"),
    "a pinned host": beside("home/known_hosts"),
    "a certificate": beside("home/server.pem"),
    "a second disk": beside("home/disk.vdi"),
    "another name for the disk": beside("home/DISK.QCOW2"),
    "an image beside the image": beside("image/other"),
    "a folder": beside("home/disk.qcow2/x"),
    "the disk twice": lambda crafted: setattr(crafted, "twice", ("home/disk.qcow2",)),
    # members that aren't files
    "a symbolic link": kind(tarfile.SYMTYPE, "/etc/shadow"),
    "a hard link": kind(tarfile.LNKTYPE, "about.json"),
    "a device": kind(tarfile.CHRTYPE),
    "a pipe": kind(tarfile.FIFOTYPE),
    "a file of holes": kind(tarfile.GNUTYPE_SPARSE),
    # the record
    "no disk": lambda crafted: crafted.files.pop("home/disk.qcow2"),
    "no key": lambda crafted: crafted.files.pop("home/id_ed25519"),
    "a key that isn't one": beside("home/id_ed25519", b"ssh-ed25519 AAAA"),
    "a name that is a path": fields(name="../x"),
    "an image that is a path": fields(image="../../x"),
    "a user that is an option": fields(ssh_user="-oProxyCommand=evil"),
    "a user of two lines": fields(ssh_user="docker\n  ProxyCommand evil"),
    "a name of two lines for the certificate": fields(tls_sans=["a\nb"]),
    "no name for the certificate": fields(tls_sans=[7]),
    "an entry of hosts that isn't text": fields(hosts=[{}]),
    "an entry of hosts of two lines": fields(hosts=["a=127.0.0.1\n10.0.0.1 b"]),
    "a host that isn't one": fields(hosts=["a b=127.0.0.1"]),
    "a folder that isn't one": fields(mounts=["/tmp:/a\x1b[2J"]),
    "a setting of the kernel that isn't one": fields(sysctls=["../../x=1"]),
    "a driver that isn't there": fields(driver="evil"),
    "a driver for hosts": fields(driver="generic", options={"ip_address": "127.0.0.1", "ssh_key": "/root/.ssh/id"}),
    "a driver without a file": fields(driver="none", options={"url": "tcp://127.0.0.1:1"}),
    "a driver with its disks elsewhere": fields(driver="libvirt", options={"uri": "qemu+ssh://a/system?command=evil"}),
    "an option that isn't one": options(evil=True),
    "an option of another type": options(slow="1"),
    "an option that is a list": options(fails=["boot"]),
    "text that steers a terminal": options(fails="\x1b[2J"),
    "an option of Docker that isn't text": engine(labels=[{}]),
    "an engine that isn't one": fields(engine=[]),
    "a field of the future": fields(evil=1),
    "negative memory": fields(memory_mib=-5),
    "no about.json": about(machine=None),
    "another processor": about(architecture="riscv64"),
    "more than fits": about(room=1 << 60),
    "an image of no digest": beside("image/image", b"evil"),
    "no image": lambda crafted: crafted.files.pop("image/image"),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_what_is_crafted_is_refused(crafted: Crafted, bring: Bring, tmp_path: Path, what: str) -> None:
    CRAFTED[what](crafted)
    ended = bring(crafted, "--yes")
    assert ended.code in {1, 2, 3}
    assert ended.err.startswith("Error: ")
    assert "\x1b" not in ended.err
    assert_nothing_is_left(tmp_path)


def assert_nothing_is_left(tmp_path: Path) -> None:
    assert store.names() == []
    assert list(cache.cached()) == []
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file() and path.name != ".lock"]
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/tmp/evil").exists()


def test_json_without_an_end(crafted: Crafted, bring: Bring, tmp_path: Path) -> None:
    for content in (b"[" * 100_000, b"9" * 100_000, b'"\\ud800"', b"\xff", b"{}", b"[]"):
        ended = bring(tar([("about.json", content)], {}))
        assert (ended.code, ended.err.startswith("Error: ")) == (1, True)
    assert_nothing_is_left(tmp_path)


DISKS = {
    "a backing file": qcow2(backing="{secret}", backing_format="raw"),
    "a backing file without a format": qcow2(backing="base.img"),
    "a backing file that isn't in it": qcow2(backing="base.img", backing_format="raw"),
    "a format that names files": qcow2(backing="base.img", backing_format="vmdk"),
    "a backing file that climbs": qcow2(backing="../base.img", backing_format="raw"),
    "a backing file by JSON": qcow2(backing='json:{{"driver":"file","filename":"{secret}"}}', backing_format="raw"),
    "a backing file of the network": qcow2(backing="nbd://127.0.0.1:1", backing_format="raw"),
    "itself": qcow2(backing="disk.qcow2", backing_format="qcow2"),
    "an external data file": qcow2(data_file="{secret}"),
    "the bit of an external data file": qcow2(incompatible=4),
    "a password": qcow2(encryption=2),
    "a disk of VirtualBox": vdi(),
    "a disk of VMware": b'# Disk DescriptorFile\nversion=1\nRW 1 FLAT "{secret}" 0\n',
    "a raw disk": bytes(4096),
    "less than a header": b"QFI\xfb\0",
    "a snapshot with a name that is an option": qcow2(snapshots=(("-h", 0),)),
    "a snapshot with a name that steers a terminal": qcow2(snapshots=(("a\x1b[2J", 0),)),
}


@pytest.mark.parametrize("what", DISKS)
def test_a_qcow2_that_names_a_file_of_this_host(
    crafted: Crafted, bring: Bring, opened: list[list[str]], tmp_path: Path, what: str
) -> None:
    """It is refused by its header: nothing opens it before."""
    crafted.machine(driver="qemu", options={})
    crafted.files["home/disk.qcow2"] = _naming(DISKS[what], tmp_path / "secret")
    ended = bring(crafted)
    assert (ended.code, ended.err.startswith("Error: ")) == (1, True)
    assert opened == []
    assert_nothing_is_left(tmp_path)


def _naming(disk: bytes, secret: Path) -> bytes:
    """The disk with the secret's path in it, which has the length that its header says."""
    if b"{secret}" not in disk:
        return disk
    if disk.startswith(b"#"):
        return disk.replace(b"{secret}", str(secret).encode())
    if b"json:" in disk:
        return qcow2(backing=f'json:{{"driver":"file","filename":"{secret}"}}', backing_format="raw")
    data = b"DATA" in disk
    return qcow2(data_file=str(secret)) if data else qcow2(backing=str(secret), backing_format="raw")


@pytest.mark.parametrize(
    "base",
    [
        qcow2(backing="/etc/shadow", backing_format="raw"),
        qcow2(data_file="/etc/shadow"),
        qcow2(backing="disk.qcow2", backing_format="qcow2"),
        b"# Disk DescriptorFile\n",
        bytes(4096),
    ],
)
def test_the_file_below_the_disk(
    crafted: Crafted, bring: Bring, opened: list[list[str]], tmp_path: Path, base: bytes
) -> None:
    crafted.machine(driver="qemu", options={})
    crafted.files["home/disk.qcow2"] = qcow2(backing="base.qcow2", backing_format="qcow2")
    crafted.files["home/base.qcow2"] = base
    assert bring(crafted).code == 1
    assert opened == []
    assert_nothing_is_left(tmp_path)


def test_a_good_qcow2_loses_the_memory_of_its_snapshots(
    crafted: Crafted, bring: Bring, opened: list[list[str]]
) -> None:
    crafted.machine(driver="qemu", options={"accelerator": "kvm"}, disk_mib=600)
    crafted.files["home/disk.qcow2"] = qcow2(300 << 20, backing="base.img", backing_format="raw", snapshots=(("a", 9),))
    crafted.files["home/base.img"] = b"anything"
    assert bring(crafted).code == 0
    assert [one.memory for one in disks.snapshots(store.folder_of("dev") / "disk.qcow2")] == [False]
    made = store.load("dev")
    assert (made.disk_mib, made.options) == (300, {})
    assert opened == []


@pytest.mark.parametrize(
    "disk",
    [vdi(kind=4, parent=b"p" * 16), vdi(parent=b"p" * 16), qcow2(), bytes(4096), vdi()[:0x100], b"KDMV" + bytes(600)],
)
def test_a_disk_of_virtualbox_that_is_only_a_part(
    crafted: Crafted, bring: Bring, opened: list[list[str]], tmp_path: Path, disk: bytes
) -> None:
    crafted.machine(driver="virtualbox", options={"no_share": True})
    del crafted.files["home/disk.qcow2"]
    crafted.files["home/disk.vdi"] = disk
    assert bring(crafted).code == 1
    assert opened == []
    assert_nothing_is_left(tmp_path)


def test_a_good_disk_of_virtualbox_gets_a_uuid_of_its_own(
    crafted: Crafted, bring: Bring, opened: list[list[str]]
) -> None:
    crafted.machine(driver="virtualbox", options={"no_share": True})
    del crafted.files["home/disk.qcow2"]
    crafted.files["home/disk.vdi"] = vdi(300 << 20)
    assert bring(crafted).code == 0
    [words] = opened
    assert words[1:] == ["internalcommands", "sethduuid", str(store.folder_of("dev") / "disk.vdi")]
    assert store.load("dev").disk_mib == 300


REACHES = {
    "your home folder": ({}, "the folder {home} of this host, to read and to write"),
    "any folder": ({"share_folder": "/:/mnt/host"}, "the folder / of this host, to read and to write, as /mnt/host"),
    "a bridge": ({"no_share": True, "bridged": "eth0"}, "a card on this host's network, through eth0"),
    "a host-only network": ({"no_share": True, "hostonly": True}, "a host-only network with this host"),
    "its addresses": ({"no_share": True, "hostonly_cidr": "10.0.0.1/24"}, "a host-only network with this host (10.0"),
    "names": ({"no_share": True, "host_dns_resolver": True}, "all names that this host can look up"),
    "a window": ({"no_share": True, "ui_type": "gui"}, "a window on this desktop"),
}


@pytest.mark.parametrize("what", REACHES)
def test_what_reaches_this_host_is_shown_and_asked_for(
    crafted: Crafted,
    bring: Bring,
    opened: list[list[str]],
    tmp_path: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given, shown = REACHES[what]
    crafted.machine(driver="virtualbox", options=given)
    del crafted.files["home/disk.qcow2"]
    crafted.files["home/disk.vdi"] = vdi(300 << 20)
    refused = bring(crafted)
    assert (refused.code, shown.format(home=Path.home()) in refused.err) == (2, True)
    assert "machine import --isolated" in refused.err
    assert_nothing_is_left(tmp_path)
    assert bring(crafted, "--yes").code == 0
    assert store.load("dev").options == given
    assert bring(crafted, "--isolated", "--name", "alone").code == 0
    alone = store.load("alone")
    assert VirtualBox(alone, store.folder_of("alone"), run.run).reaches() == []


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"tls": False}, "a Docker without TLS"),
        ({"tls_sans": ["a.b"]}, "for the names a.b"),
        ({"mounts": ["/tmp:/src"]}, "folders of this host, with your rights: /tmp:/src"),
    ],
)
def test_what_any_driver_allows_is_asked_for_too(
    crafted: Crafted, bring: Bring, tmp_path: Path, fields: dict[str, object], shown: str
) -> None:
    crafted.machine(**fields)
    asked = bring(crafted, "--name", "dev")
    assert shown in asked.err
    file = asked.err.rpartition(" --name dev ")[2].strip()
    assert f"machine import --isolated --name dev {file}" in asked.err
    assert shlex.split(file) == [str(tmp_path / "g")]
    assert store.names() == []
    assert bring(crafted, "--isolated").code == 0
    made = store.load("dev")
    assert (made.tls, made.tls_sans, made.mounts) == (True, (), ())


@pytest.mark.parametrize(
    ("mount", "code", "said"),
    [("/tmp:/usr", 2, "needs itself"), ("{store}:/keys", 3, "lies in the store"), ("{gone}", 3, "doesn't exist")],
)
def test_its_folders_are_checked_as_by_create(
    crafted: Crafted, bring: Bring, tmp_path: Path, mount: str, code: int, said: str
) -> None:
    store.folder().mkdir(parents=True, exist_ok=True)
    crafted.machine(mounts=[mount.format(store=store.folder(), gone=tmp_path / "gone")])
    refused = bring(crafted, "--yes")
    assert (refused.code, said in refused.err, "machine import --isolated" in refused.err) == (code, True, True)
    assert store.names() == []
    assert bring(crafted, "--isolated").code == 0


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_a_terminal_is_asked(
    crafted: Crafted, tmp_path: Path, typed: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    crafted.options(bold=True)
    (tmp_path / "g").write_bytes(crafted.raw())
    environment = {**os.environ, "PYTHONPATH": str(Path(machine_fake.__file__).parent)}
    words = [sys.executable, "-m", "machine", "import", str(tmp_path / "g")]
    ended, shown = in_terminal(words, typed.encode(), env=environment, timeout=200)
    question = 'The machine "dev" asks for access to this host:'
    assert (ended, question in shown, "the bold switch" in shown) == (code, True, True)
    assert store.names() == (["dev"] if code == 0 else [])


def test_the_kernel_comes_out_of_the_image(crafted: Crafted, bring: Bring) -> None:
    """A kernel beside a genuine digest: earlier exports had one, and it is passed over."""
    crafted.files |= {"image/kernel": b"evil", "image/cmdline": b"init=/evil", "image/boot.json": b"{}"}
    assert bring(crafted).code == 0
    image = Image(store.load("dev").image)
    assert (image.kernel.read_bytes(), image.command_line.read_text(encoding="utf-8")) == (
        b"kernel" * 1000,
        ABOUT["command_line"],
    )


def test_what_the_image_says_of_itself_is_read_out_of_it(crafted: Crafted, bring: Bring) -> None:
    crafted.files["image/image.json"] = b'{"name": "../../../evil", "architecture": "x", "digest": "evil"}'
    assert bring(crafted).code == 0
    [about] = cache.cached()
    assert (about.name, about.digest, about.architecture) == ("machineos", store.load("dev").image, "x86_64")
    with pytest.raises(NoSuchImage):
        cache.current("machineos")


def test_an_image_that_is_no_machineos(crafted: Crafted, bring: Bring, tmp_path: Path) -> None:
    path = iso(tmp_path / "evil.iso", leave_out="/boot/vmlinuz")
    crafted.files["image/image"] = path.read_bytes()
    crafted.machine(image=cache.digest(path))
    path.unlink()
    assert "isn't a machineos ISO" in bring(crafted).err
    assert_nothing_is_left(tmp_path)


def test_a_cloud_image_that_names_a_file(crafted: Crafted, bring: Bring, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(qcow2(backing="/etc/shadow", backing_format="raw"))
    crafted.files["image/image"] = path.read_bytes()
    crafted.machine(image=cache.digest(path))
    assert "it needs the file /etc/shadow" in bring(crafted).err
    assert_nothing_is_left(tmp_path)


def test_an_image_goes_again_when_the_machine_cannot_be_made(crafted: Crafted, bring: Bring, tmp_path: Path) -> None:
    crafted.options(fails="create")
    assert "the fake fails at create" in bring(crafted).err
    assert_nothing_is_left(tmp_path)


def test_each_field_of_a_machine_is_kept_or_renewed() -> None:
    """A new one has to be thought of: what does it mean when a stranger has chosen it?"""
    assert sorted([*unpack.KEPT, *unpack.RENEWED]) == sorted(field.name for field in dataclasses.fields(Machine))


NAMES = st.one_of(
    st.sampled_from(["home/disk.qcow2", "home/id_ed25519", "image/image", "about.json", "sums.json", "home/", ""]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=90),
    st.tuples(st.sampled_from(["home/", "image/", "../", "/"]), st.text("abc./\\-", max_size=9)).map("".join),
)


@settings(max_examples=60)
@given(st.dictionaries(NAMES, st.binary(max_size=20), max_size=4), st.booleans())
def test_any_other_members(
    crafted: Crafted, bring: Bring, tmp_path: Path, files: dict[str, bytes], first: bool
) -> None:
    """Whatever is added or exchanged: a machine is made of its parts, or nothing is left; no file lies elsewhere."""
    before = {path for path in tmp_path.rglob("*") if (tmp_path / "elsewhere") not in path.parents}
    changed = Crafted(crafted.about, files | crafted.files if first else crafted.files | files)
    ended = bring(changed)
    assert ended.code in {0, 1, 2, 3}
    assert "Traceback" not in ended.err
    if ended.code == 0:
        allowed = {"machine.json", "lock", "disk.qcow2", *KEYS, *(f"{key}.pub" for key in KEYS)}
        assert {path.name for path in store.folder_of("dev").path.iterdir()} <= allowed
        registry.load("fake")(store.load("dev"), store.folder_of("dev"), run.run).remove()
        store.folder_of("dev").config.unlink()
        for path in store.folder_of("dev").path.iterdir():
            path.unlink()
    after = {path for path in tmp_path.rglob("*") if (tmp_path / "elsewhere") not in path.parents}
    assert after - before <= {tmp_path / "g", tmp_path / "elsewhere"}


KEYS = ("id_ed25519", "ssh_host_ed25519_key")


def test_a_name_of_an_earlier_version_can_be_left_behind(crafted: Crafted, bring: Bring) -> None:
    crafted.machine(name="web-")
    refused = bring(crafted)
    assert (refused.code, "machine import --name NAME FILE" in refused.err) == (2, True)
    assert bring(crafted, "--name", "web").code == 0
