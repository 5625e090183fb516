"""machine ssh-config: what ssh itself makes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import spellings

from machine.paths import MachineFolder
from machine.ssh import client_config
from machine.ssh.remote import Shell
from tests.fixture_types import Add, Invoke

openssh = pytest.mark.skipif(not shutil.which("ssh"), reason="needs OpenSSH")


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return tmp_path / "user" / ".ssh" / "config"


def ssh_reads(config: Path, host: str) -> dict[str, str]:
    done = subprocess.run(["ssh", "-G", "-F", config, host], check=True, capture_output=True, text=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@openssh
def test_ssh_reads_what_is_printed(invoke: Invoke, add: Add, store: Path, tmp_path: Path) -> None:
    add()
    add("web", ssh_user="me")
    file = tmp_path / "printed"
    file.write_text(invoke("ssh-config").out)
    found = ssh_reads(file, "machine-web")
    assert (found["hostname"], found["port"], found["user"]) == ("127.77.0.3", "22", "me")
    assert found["identityfile"] == str(store / "machines/web/id_ed25519")
    assert found["userknownhostsfile"] == str(store / "machines/web/known_hosts")
    assert found["stricthostkeychecking"] in {"true", "yes"}
    assert ssh_reads(file, "machine-default")["hostname"] == "127.77.0.2"
    assert ssh_reads(file, "default")["hostname"] == "default"
    assert invoke("ssh-config", "web").out == invoke("ssh-config").out.partition("\n\n")[2]


@openssh
def test_an_include_is_right_for_machines_of_later(invoke: Invoke, add: Add, store: Path, user: Path) -> None:
    user.parent.mkdir(parents=True)
    user.write_text("Host *\n  User somebody\n", encoding="utf-8")
    add()
    assert invoke("ssh-config", "--install").code == 0
    assert user.read_text(encoding="utf-8").endswith("\n\nHost *\n  User somebody\n")
    assert ssh_reads(user, "machine-default")["hostname"] == "127.77.0.2"
    web, other = add("web"), add("other")
    assert other.address
    client_config.write(Shell(MachineFolder(store / "machines/web"), other.address, web.ssh_user))
    assert ssh_reads(user, "machine-web")["hostname"] == "127.77.0.4"
    shutil.rmtree(store / "machines/web")
    assert ssh_reads(user, "machine-web")["hostname"] == "machine-web"


def test_install_and_remove_do_nothing_twice(invoke: Invoke, user: Path) -> None:
    assert invoke("ssh-config", "--install").code == 0
    once = user.read_text(encoding="utf-8")
    assert user.stat().st_mode & 0o777 == 0o600
    assert "already" in invoke("ssh-config", "--install").out
    assert user.read_text(encoding="utf-8") == once
    assert client_config.installed()
    invoke("ssh-config", "--remove")
    assert user.read_text(encoding="utf-8") == ""
    assert "does not include" in invoke("ssh-config", "--remove").out
    assert invoke("ssh-config", "--install", "--remove").code == 2


def test_a_linked_configuration_stays_a_link(invoke: Invoke, user: Path, tmp_path: Path) -> None:
    user.parent.mkdir(parents=True)
    dotfile = tmp_path / "dotfile"
    dotfile.write_text("Host a\n")
    dotfile.chmod(0o644)
    user.symlink_to(dotfile)
    invoke("ssh-config", "--install")
    assert user.is_symlink()
    assert "Host a" in dotfile.read_text()
    assert dotfile.stat().st_mode & 0o777 == 0o644
    invoke("ssh-config", "--remove")
    assert dotfile.read_text() == "Host a\n"


def test_json(invoke: Invoke, add: Add, store: Path) -> None:
    add()
    assert json.loads(invoke("ssh-config", "--json").out) == [
        {
            "name": "default",
            "host": "machine-default",
            "hostname": "127.77.0.2",
            "port": 22,
            "user": "docker",
            "identity_file": str(store / "machines/default/id_ed25519"),
        }
    ]
    assert invoke("ssh-config", "absent").code == 1


@pytest.mark.parametrize("spelling", spellings.ALL)
def test_the_store_by_another_way(invoke: Invoke, store: Path, user: Path, spelling: spellings.Spell) -> None:
    assert invoke("-s", spelling(store), "ssh-config", "--install").code == 0
    once = user.read_text(encoding="utf-8")
    os.environ["MACHINE_STORAGE_PATH"] = str(store)
    assert invoke("ssh-config", "--install").code == 0
    assert user.read_text(encoding="utf-8") == once
    assert client_config.uninstall()
    assert "Include" not in user.read_text(encoding="utf-8")
