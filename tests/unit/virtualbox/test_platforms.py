"""The differences on Windows and macOS, tested with an injected platform."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import cast

import click
import pytest
from fake_vboxmanage import UUID
from machine.drivers.virtualbox import VirtualBox, settings
from machine.drivers.virtualbox.options import Options

from machine import loopback, run, shells
from machine.cli import create, driver_options, prompt
from machine.instance import Instance
from machine.paths import MachineFolder
from machine.spec import Address, Machine

# MachineFolder only joins names, and only Windows makes a WindowsPath.
ANN = cast(Path, PureWindowsPath(r"C:\Users\Ann Lee\.machine\machines\dev"))


def machine(address: Address) -> Machine:
    return Machine("dev", "virtualbox", UUID, "52:54:00:0a:0b:0c", "", 2048, 2, 20000, address=address)


def test_macos_forwards_ports_of_127_0_0_1(tmp_path: Path) -> None:
    taken = [Address("127.0.0.1", 2375, 2222)]
    address = loopback.choose(taken, tmp_path, platform="darwin", is_free=lambda host, port: True)
    assert [str(rule) for rule in settings.forwards(machine(address))] == [
        "docker,tcp,127.0.0.1,2376,,2375",
        "ssh,tcp,127.0.0.1,2223,,22",
    ]


def test_windows_has_a_loopback_address_for_each_machine(tmp_path: Path) -> None:
    address = loopback.choose([], tmp_path, platform="win32", is_free=lambda host, port: True)
    docker, ssh = map(str, settings.forwards(machine(address)))
    assert docker == f"docker,tcp,{address.host},2375,,2375"
    assert ssh == f"ssh,tcp,{address.host},22,,22"
    assert address.host.startswith("127.77.")


def test_paths_with_blanks_stay_one_word_on_windows() -> None:
    folder = MachineFolder(ANN)
    words = settings.create(machine(Address("127.77.1.2")), folder, arm=False)
    line = subprocess.list2cmdline([r"C:\Program Files\Oracle\VirtualBox\VBoxManage.exe", *words])
    assert line == (
        r'"C:\Program Files\Oracle\VirtualBox\VBoxManage.exe" createvm --name dev '
        rf'--uuid {UUID} --ostype Linux26_64 --basefolder "C:\Users\Ann Lee\.machine\machines\dev" --register'
    )
    modify = settings.modify(machine(Address("127.77.1.2")), folder, Options(), (7, 2, 0), arm=False)
    assert modify[modify.index("--uartmode1") + 2] == r"C:\Users\Ann Lee\.machine\machines\dev\console.log"


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        (
            "cmd",
            [
                "SET DOCKER_TLS_VERIFY=1",
                "SET DOCKER_HOST=tcp://127.77.1.2:2375",
                r'SET "DOCKER_CERT_PATH=C:\Users\Ann Lee\.machine\machines\dev"',
                "SET DOCKER_MACHINE_NAME=dev",
            ],
        ),
        (
            "powershell",
            [
                '$Env:DOCKER_TLS_VERIFY = "1"',
                '$Env:DOCKER_HOST = "tcp://127.77.1.2:2375"',
                r'$Env:DOCKER_CERT_PATH = "C:\Users\Ann Lee\.machine\machines\dev"',
                '$Env:DOCKER_MACHINE_NAME = "dev"',
            ],
        ),
    ],
)
def test_env_for_the_shells_of_windows(shell: str, lines: list[str]) -> None:
    address = Address("127.77.1.2")
    variables = prompt.variables(Instance(machine(address), MachineFolder(ANN)))
    assert [shells.find(shell).set(key, str(value)) for key, value in variables.items()] == lines


def test_env_on_macos() -> None:
    address = Address("127.0.0.1", 2376, 2223)
    folder = MachineFolder(cast(Path, PurePosixPath("/Users/Ann Lee/.machine/machines/dev")))
    variables = prompt.variables(Instance(machine(address), folder))
    lines = [shells.find("zsh").set(key, str(value)) for key, value in variables.items()]
    assert lines[1:3] == [
        'export DOCKER_HOST="tcp://127.0.0.1:2376"',
        'export DOCKER_CERT_PATH="/Users/Ann Lee/.machine/machines/dev"',
    ]


def test_windows_knows_no_other_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "which", lambda *_: None)  # its installer doesn't change PATH
    assert driver_options.default_driver("win32") == "virtualbox"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--memory", "8096"], (8096, 2, 20480)),
        (["--virtualbox-memory", "8096"], (8096, 2, 20480)),
        (["--virtualbox-cpu-count", "3", "--virtualbox-disk-size", "50000"], (2048, 3, 50000)),
    ],
)
def test_docker_machines_names_for_the_sizes(
    monkeypatch: pytest.MonkeyPatch, store: Path, words: list[str], expected: tuple[int, int, int]
) -> None:
    made = drafted(monkeypatch, "--driver", "virtualbox", *words, "dev")
    assert (made.memory_mib, made.cpus, made.disk_mib) == expected
    assert made.options == {}


def test_all_processors(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert drafted(monkeypatch, "--driver", "virtualbox", "--virtualbox-cpu-count", "-1", "dev").cpus == 12


def test_another_drivers_names_change_nothing(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    assert drafted(monkeypatch, "--driver", "qemu", "--virtualbox-memory", "8096", "dev").memory_mib == 2048


def test_the_environment_of_docker_machine(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    monkeypatch.setenv("VIRTUALBOX_MEMORY_SIZE", "3000")
    monkeypatch.setenv("VIRTUALBOX_NO_SHARE", "true")
    monkeypatch.setenv("VIRTUALBOX_HOSTONLY_CIDR", "192.168.60.1/24")
    made = drafted(monkeypatch, "--driver", "virtualbox", "dev")
    assert made.memory_mib == 3000
    assert made.options == {"no_share": True, "hostonly_cidr": "192.168.60.1/24"}
    assert VirtualBox(made, MachineFolder(store / "machines" / "dev"), None).options.wants_hostonly


def drafted(monkeypatch: pytest.MonkeyPatch, *words: str) -> Machine:
    """The machine that the command line asks for; none is made."""
    made: list[Machine] = []

    def take(asked: Machine, *_: object, **__: object) -> Machine:
        made.append(asked)
        return asked

    monkeypatch.setattr("machine.create.create", take)
    monkeypatch.setattr(create, "obtained", lambda *_, **__: "digest")
    run: Callable[..., object] = create.create.main
    with contextlib.suppress(SystemExit, click.exceptions.Exit):
        run(["-q", *words], standalone_mode=False)
    return made[0]
