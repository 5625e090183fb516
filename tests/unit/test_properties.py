"""Random names, paths and settings: each program that reads them must get the same value back."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import click
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from machine.drivers.qemu import argv
from machine.drivers.virtualbox import parse

from machine import config, filesystem, resources, shells, spec, transfer
from machine.config import Kind
from machine.docker import contexts
from machine.docker.api import Client
from machine.errors import CheckFailed, MachineError, StoreDamaged, Usage
from machine.guest import init_systems, seed
from machine.paths import MachineFolder
from machine.render import render
from machine.spec import Address, Engine, Machine
from machine.ssh import client_config, openssh
from machine.ssh.remote import Shell
from machine.tls import certs

# The same examples in each run, so that a failure is always somebody's change.
quick = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(quick, max_examples=5)

ODD = " '\"`$\\!#%&*?[]{}()<>|;,=:~^@+-.äß日\u2028\ufeff\u00a0😀aZ0"
# Each of them by itself, and all together: every run has these.
EACH = [f"a{character}h" for character in ODD]
ALL = ODD.strip()
EVERY_PATH = [Path("/", name) for name in [*EACH, ALL]]
odd = st.text(st.sampled_from(ODD), min_size=1, max_size=8)
exotic = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=8)
words = odd | exotic
# A part of a path, as a file system may have it.
parts = words.filter(lambda text: text not in {".", ".."} and len(text.encode()) < 200)
paths = (
    st.lists(parts, min_size=1, max_size=3).map(lambda found: Path("/", *found)).filter(lambda it: "${" not in str(it))
)
batches = st.lists(paths, min_size=10, max_size=30, unique=True)


def output(*argv: str | Path, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Shells.

READERS = {
    "sh": ["dash"],
    "bash": ["bash", "--norc"],
    "zsh": ["zsh", "-f"],
    "fish": ["fish", "--no-config"],
    "tcsh": ["tcsh", "-f"],
}


@pytest.mark.parametrize("shell", READERS)
@few
@example(values=[*EACH, ALL])
@given(values=st.lists(words | st.text(st.sampled_from("\n\ta$\\\"'")), min_size=20, max_size=40))
def test_shells_read_values_back(shell: str, values: list[str]) -> None:
    program, *options = READERS[shell]
    if not shutil.which(program):
        pytest.skip(f"{program} isn't installed")
    if shell == "tcsh":
        values = [value.replace("\n", " ") for value in values]
    lines = [shells.SHELLS[shell].set(f"V{number}", value) for number, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script"
        script.write_text("\n".join([*lines, "env -0\n"]), encoding="utf-8")
        printed = output("env", "LC_ALL=C.UTF-8", program, *options, script)
    found = dict(item.split("=", 1) for item in printed.split("\0") if item.startswith("V"))
    assert [found[f"V{number}"] for number in range(len(values))] == values


@pytest.mark.skipif(not shutil.which("emacs"), reason="emacs isn't installed")
@few
@example(values=[*EACH, ALL])
@given(values=st.lists(words, min_size=20, max_size=40))
def test_emacs_reads_values_back(values: list[str]) -> None:
    lines = [shells.SHELLS["emacs"].set(f"V{number}", value) for number, value in enumerate(values)]
    shown = [f'(princ (getenv "V{number}")) (princ "\\0")' for number in range(len(values))]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.el"
        script.write_text("\n".join([";; -*- coding: utf-8 -*-", *lines, *shown]), encoding="utf-8")
        printed = output("env", "LC_ALL=C.UTF-8", "emacs", "-Q", "--batch", "--load", script)
    assert printed.split("\0")[:-1] == values


# OpenSSH.

with_openssh = pytest.mark.skipif(not shutil.which("ssh"), reason="OpenSSH isn't installed")


def ssh_reads(*options: str | Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in output("ssh", "-G", *options, "machine-x").split("\n"):
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


@with_openssh
@few
@example(batch=EVERY_PATH)
@given(batch=batches)
def test_ssh_reads_paths_in_a_file_and_in_options(batch: list[Path]) -> None:
    quoted = [openssh._path(path) for path in batch]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write("Host machine-x\n" + "".join(f"  IdentityFile {path}\n" for path in quoted))
        file.flush()
        in_file = ssh_reads("-F", file.name)
    in_options = ssh_reads("-F", "none", *(word for path in quoted for word in ("-o", f"IdentityFile={path}")))
    for found in (in_file, in_options):
        # The name of a file of keys is expanded when ssh opens it; -G shows some names before that, and some after.
        shown = found["identityfile"]
        assert len(shown) == len(batch)
        for text, path in zip(shown, map(str, batch), strict=True):
            assert text in {path, path.replace("%", "%%")}


@with_openssh
@settings(quick, max_examples=15)
@example(name=ALL.replace("${", ""))
@given(name=parts)
def test_ssh_finds_the_machines_of_a_store_of_any_name(name: str, tmp_path: Path) -> None:
    assume("${" not in name)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=tmp_path) as top:
        store = Path(top) / name
        patch.setenv("MACHINE_STORAGE_PATH", str(store))
        folder = MachineFolder(store / "machines" / "x")
        folder.path.mkdir(parents=True)
        client_config.write(Shell(folder, Address("127.77.0.9", ssh_port=2222), "docker"))
        user = Path(top) / "config"
        user.write_text(f"{client_config._include()}\n", encoding="utf-8")
        found = ssh_reads("-F", user)
        assert found["hostname"] == ["127.77.0.9"]
        for key, path in (("identityfile", folder.ssh_key), ("userknownhostsfile", folder.known_hosts)):
            # What isn't opened yet is printed with its percent signs doubled still.
            assert [value.replace("%%", "%") for value in found[key]] == [str(path).replace("%%", "%")]


@quick
@given(before=words | st.text(st.sampled_from("ab \n\r\t\x0b\x0c\x85\u2028")), raw=st.binary(max_size=20))
def test_a_users_ssh_config_comes_back_as_it_was(before: str, raw: bytes, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        patch.setenv("MACHINE_STORAGE_PATH", str(tmp_path / "store"))
        user = tmp_path / ".ssh" / "config"
        user.parent.mkdir(exist_ok=True)
        content = before.encode() + raw
        user.write_bytes(content)
        assert client_config.install()
        assert client_config.installed()
        assert not client_config.install()
        assert client_config.uninstall()
        ends = content if not content or content.endswith(b"\n") else content + b"\n"
        assert user.read_bytes() == ends


# Docker.


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """The client looks into them."""
    folder = MachineFolder(tmp_path / "home")
    folder.path.mkdir()
    certs.issue_server(tmp_path / "certs", folder, names=[], addresses=[])
    return folder.path


@pytest.mark.skipif(not shutil.which("docker"), reason="the docker client isn't installed")
@settings(quick, max_examples=8)
@example(name=ALL.replace("${", ""))
@given(name=parts)
def test_docker_reads_the_paths_of_certificates(name: str, tmp_path: Path, certificates: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=tmp_path) as top:
        patch.setenv("DOCKER_CONFIG", f"{top}/docker")
        folder = MachineFolder(Path(top) / name / "machines" / "x")
        folder.path.mkdir(parents=True)
        for path in certificates.iterdir():
            shutil.copy(path, folder.path)
        client = Client(MACHINE, folder, Address("127.77.0.9"))
        assert contexts.write(client)
        assert contexts._has_certificates(client)
        assert not contexts.write(client)


# QEMU, libvirt, systemd, fstab.


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="QEMU isn't installed")
@settings(quick, max_examples=10)
@example(name=ALL.replace("${", ""))
@given(name=parts)
def test_qemu_reads_paths_in_its_lists_of_options(name: str, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        file = Path(folder) / name
        file.write_bytes(bytes(512))
        options = f"driver=raw,file.driver=file,file.filename={argv._escaped(file)},read-only=on"
        assert json.loads(output("qemu-img", "info", "--output=json", "--image-opts", options))["virtual-size"] == 512


@quick
@example(path=EVERY_PATH[-1])
@given(path=paths)
def test_libvirts_xml_keeps_paths(path: Path) -> None:
    found = ElementTree.fromstring(render("libvirt/pool.xml.j2", name="x", path=str(path)))
    assert found.findtext("target/path") == str(path)


@quick
@example(path=EVERY_PATH[-1])
@given(path=paths)
def test_libvirt_itself_reads_paths(path: Path) -> None:
    libvirt = pytest.importorskip("libvirt")
    xml = render("libvirt/pool.xml.j2", name="x", path=str(path))
    connection = libvirt.open("test:///default")
    try:
        pool = connection.storagePoolDefineXML(xml)
        assert ElementTree.fromstring(pool.XMLDesc()).findtext("target/path") == str(path)
    finally:
        connection.close()


@quick
@example(value='%h \\ "')
@given(value=words.filter(str.isprintable))
def test_systemd_reads_a_variable_back(value: str) -> None:
    line = f'Environment="{init_systems._systemd(f"A={value}")}"'
    assert systemd_reads(line) == f"A={value}"


def systemd_reads(line: str) -> str:
    """By the rules of systemd.syntax(7), "Quoting", and of systemd.unit(5), "Specifiers"."""
    quoted = re.fullmatch(r'Environment="((?:[^"\\]|\\.)*)"', line, re.DOTALL)
    assert quoted
    unescaped = re.sub(r'\\(["\\\' ])', r"\1", quoted[1])
    assert not re.search(r"(?<!%)(?:%%)*%(?!%)", unescaped)
    return unescaped.replace("%%", "%")


@quick
@example(target="a\\040 b")
@given(target=words.filter(str.isprintable))
def test_a_line_of_fstab_has_four_fields(target: str) -> None:
    fields = seed.mount_line(seed.Mount("home", target, "vboxsf", "uid=1000")).removesuffix("\n").split(" ")
    assert len(fields) == 4
    raw = re.sub(rb"\\(\d{3})", lambda found: bytes([int(found[1], 8)]), fields[1].encode())
    assert raw.decode() == target


# VirtualBox.


@quick
@example(value='C:\\a "b"\nc\\')
@given(value=words | st.text(st.sampled_from('a"\\\n=')))
def test_what_virtualbox_prints_is_read_back(value: str) -> None:
    """As VBoxManage 7 writes it (VBoxManageInfo.cpp, outputMachineReadableString)."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    text = f'name="before"\nCfgFile="{escaped}"\nUUID="after"\n'
    assert parse.machinereadable(text) == {"name": "before", "CfgFile": value, "UUID": "after"}


# Names.


@quick
@given(
    name=st.one_of(
        words, st.from_regex(r"[a-zA-Z0-9.-]{1,8}", fullmatch=True), st.from_regex(r"(?i)(con|aux|com1)[.]?\w{0,3}")
    )
)
def test_a_name_is_refused_or_good_everywhere(name: str) -> None:
    try:
        spec.check_new_name(name)
    except Usage:
        return
    assert Path(name).parts == (name,)
    assert not PureWindowsPath(name).is_reserved()
    assert transfer.place(f"{name}:/x", platform="linux") == transfer.Place("/x", name)
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+", contexts.name(name))
    assert certs._subject_names(MachineFolder(Path("/x") / name), [], [])[0] == name


# Settings.

MACHINE = Machine("x", "qemu", "id", "52:54:00:00:00:01", "", 1024, 2, 20000, address=Address("127.77.0.9"))
options = st.dictionaries(words, st.one_of(words, st.integers(), st.booleans(), st.none(), st.lists(words).map(tuple)))
machines = st.builds(
    Machine,
    name=words,
    driver=words,
    uuid=words,
    mac=words,
    image=words,
    memory_mib=st.integers(),
    cpus=st.integers(),
    disk_mib=st.integers(),
    tls_sans=st.lists(words).map(tuple),
    engine=st.builds(Engine, options=st.lists(words).map(tuple)),
    address=st.one_of(st.none(), st.builds(Address, words, st.integers(), st.integers())),
    options=options,
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@quick
@given(machine=machines)
def test_a_machine_is_read_as_it_was_written(machine: Machine) -> None:
    assert spec.loads(spec.dumps(machine), Path("x/machine.json")) == machine


@quick
@given(field=st.sampled_from(["format", *Machine.__dataclass_fields__]), value=anything)
def test_a_field_of_any_kind_is_read_or_refused(field: str, value: Any) -> None:
    data = {**json.loads(spec.dumps(MACHINE)), field: value}
    with contextlib.suppress(StoreDamaged):
        spec.dumps(spec.loads(json.dumps(data), Path("x/machine.json")))


@quick
@given(text=st.one_of(st.text(max_size=20), anything.map(json.dumps)))
def test_any_file_is_a_machine_or_damaged(text: str) -> None:
    with pytest.raises(StoreDamaged):
        spec.loads(text, Path("x/machine.json"))


KINDS = {"memory": Kind.VALUE, "cpus": Kind.VALUE, "no_tls": Kind.SWITCH, "engine_label": Kind.LIST}


@quick
@given(raw=st.binary(max_size=30) | st.text(ODD + "=\n[]", max_size=30).map(str.encode))
def test_any_file_is_settings_or_refused(raw: bytes, store: Path) -> None:
    (store / "config.toml").write_bytes(raw)
    with contextlib.suppress(Usage):
        assert set(config.defaults(KINDS)) <= set(KINDS)


@quick
@given(
    key=st.sampled_from(["memory", "cpus", "disk", "driver", "timeout", "image"]),
    value=words | st.integers() | st.floats(),
)
def test_any_value_of_an_option_is_taken_or_refused(key: str, value: str | float, store: Path) -> None:
    from machine.cli.command_line import machine
    from machine.cli.create import create

    # As it is called: click keeps the names of a command's help option from its first context.
    root = click.Context(machine, info_name="machine", **machine.context_settings)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    (store / "config.toml").write_text(f"{key} = {text}\n", encoding="utf-8")
    with contextlib.suppress(click.UsageError, MachineError):
        create.make_context("create", ["dev"], parent=root)


@quick
@given(text=st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    with contextlib.suppress(Usage):
        assert resources.mib(text) > 0


@quick
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8))
def test_a_store_is_refused_for_its_path_before_ssh_is_lost_on_it(name: str, tmp_path: Path) -> None:
    bad = bool(re.search(r"[\x00-\x1f\x7f]", name)) or "${" in name
    with pytest.raises(CheckFailed, match="path of the store") if bad else contextlib.nullcontext():
        filesystem.check(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
