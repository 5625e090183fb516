import dataclasses
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pycdlib
import pytest
import yaml

from machine.errors import Usage
from machine.guest import seed
from machine.guest.seed import Interface, Mount, Seed, Tls

HOST_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
PLAIN = Seed(
    instance_id="6f3c",
    hostname="dev",
    user="docker",
    authorized_keys=("ssh-ed25519 AAAA me@here\n",),
    host_key=HOST_KEY,
    host_key_public="ssh-ed25519 BBBB dev\n",
    daemon_json="{}\n",
    tls=Tls("CA\n", "CERT\n", "KEY\n"),
)
FULL = dataclasses.replace(
    PLAIN,
    docker_env="A=b\n",
    environment="http_proxy=http://p\n",
    ca_certificates=(("corp", "PEM\n"), ("corp-2.internal", "PEM2\n")),
    interfaces=(
        Interface("08:00:27:00:00:01"),
        Interface("08:00:27:00:00:02", "192.168.99.100/24", "192.168.99.1", ("1.1.1.1", "9.9.9.9")),
    ),
    mounts=(Mount("home", "/Users/me and #you", "9p", "trans=virtio,version=9p2000.L"),),
)


def user_data(what: Seed) -> dict[str, Any]:
    text = seed.contents(what)["user-data"]
    assert text.startswith("#cloud-config\n")
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def test_every_file_comes_back_by_both_kinds_of_name(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    seed.write(path, FULL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    for name, text in seed.contents(FULL).items():
        for kind in ("rr_path", "joliet_path"):
            with iso.open_file_from_iso(**{kind: f"/{name}"}) as file:
                assert file.read().decode() == text
    iso.close()


def test_what_other_tools_see(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    seed.write(path, FULL)
    described = subprocess.run(["isoinfo", "-d", "-i", path], check=True, capture_output=True, text=True).stdout
    assert "Volume id: CIDATA\n" in described
    assert "Rock Ridge signatures version 1 found" in described
    assert "Joliet with UCS level 3 found" in described
    for kind in ("-R", "-J"):
        by_isoinfo = subprocess.run(["isoinfo", kind, "-f", "-i", path], check=True, capture_output=True, text=True)
        files = {f"/{name}" for name in seed.contents(FULL)}
        assert files <= set(by_isoinfo.stdout.split()) <= files | {"/machineos", "/machineos/tls", "/machineos/ca"}
    listed = subprocess.run(
        ["xorriso", "-indev", path, "-find", "/", "-type", "f", "-exec", "lsdl"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(re.findall(r"^[-d]\S{9}", listed.stdout, re.MULTILINE)) == {"-rw-------"}
    assert "Volume id    : 'CIDATA'" in listed.stderr


def test_machineos(tmp_path: Path) -> None:
    contents = seed.contents(PLAIN)
    assert {
        name.removeprefix("machineos/"): text for name, text in contents.items() if name.startswith("machineos/")
    } == {
        "hostname": "dev\n",
        "authorized_keys": "ssh-ed25519 AAAA me@here\n",
        "ssh_host_ed25519_key": HOST_KEY,
        "ssh_host_ed25519_key.pub": "ssh-ed25519 BBBB dev\n",
        "tls/ca.pem": "CA\n",
        "tls/server.pem": "CERT\n",
        "tls/server-key.pem": "KEY\n",
        "daemon.json": "{}\n",
        "docker.env": "",
        "environment": "",
    }
    contents = seed.contents(FULL)
    assert contents["machineos/ca/corp.crt"] == "PEM\n"
    assert contents["machineos/network"] == "192.168.99.100/24 192.168.99.1 1.1.1.1 9.9.9.9\n"
    assert contents["machineos/mounts"] == "home /Users/me\\040and\\040#you 9p trans=virtio,version=9p2000.L\n"


def test_without_tls_there_is_a_marker_and_no_key() -> None:
    contents = seed.contents(dataclasses.replace(PLAIN, tls=None))
    assert "machineos/no-tls" in contents
    assert not [name for name in contents if "/tls/" in name]
    assert "machineos/no-tls" not in seed.contents(PLAIN)


def test_cloud_init() -> None:
    assert yaml.safe_load(seed.contents(PLAIN)["meta-data"]) == {"instance-id": "6f3c", "local-hostname": "dev"}
    data = user_data(PLAIN)
    assert data["users"] == [
        {
            "name": "docker",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "shell": "/bin/bash",
            "lock_passwd": True,
            "ssh_authorized_keys": ["ssh-ed25519 AAAA me@here"],
        }
    ]
    assert data["ssh_keys"] == {"ed25519_private": HOST_KEY, "ed25519_public": "ssh-ed25519 BBBB dev"}
    assert data["ssh_pwauth"] is False
    assert not {"packages", "write_files", "mounts", "ca_certs"} & data.keys()
    assert "network-config" not in seed.contents(PLAIN)


def test_cloud_init_with_everything() -> None:
    data = user_data(FULL)
    assert data["ca_certs"] == {"trusted": ["PEM\n", "PEM2\n"]}
    assert data["mounts"] == [["home", "/Users/me and #you", "9p", "trans=virtio,version=9p2000.L", "0", "0"]]
    assert yaml.safe_load(seed.contents(FULL)["network-config"]) == {
        "version": 2,
        "ethernets": {
            "nic0": {"match": {"macaddress": "08:00:27:00:00:01"}, "dhcp4": True},
            "nic1": {
                "match": {"macaddress": "08:00:27:00:00:02"},
                "dhcp4": False,
                "addresses": ["192.168.99.100/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "192.168.99.1"}],
                "nameservers": {"addresses": ["1.1.1.1", "9.9.9.9"]},
            },
        },
    }


@pytest.mark.parametrize(
    "nasty", ['"', "'", "\\", "{{ 7 * 7 }}", "{% raw %}", "#", ": x", "- [", "&a <b>", "ü", "\U0001f600"]
)
def test_values_stay_values(nasty: str) -> None:
    data = user_data(
        dataclasses.replace(
            PLAIN,
            authorized_keys=(f"ssh-ed25519 AAAA {nasty}",),
            ca_certificates=(("a", f"PEM {nasty}\r\n\r\nend\n"),),
            mounts=(Mount(nasty, f"/{nasty}", nasty, nasty),),
        )
    )
    assert data["users"][0]["ssh_authorized_keys"] == [f"ssh-ed25519 AAAA {nasty}"]
    assert data["ca_certs"] == {"trusted": [f"PEM {nasty}\r\n\r\nend\n"]}
    assert data["mounts"] == [[nasty, f"/{nasty}", nasty, nasty, "0", "0"]]


@pytest.mark.parametrize(
    "change",
    [
        {"user": "root\n"},
        {"user": "a b"},
        {"user": "{{x}}"},
        {"user": ""},
        {"hostname": "a\nb"},
        {"hostname": ""},
        {"instance_id": "a\nb"},
        {"authorized_keys": ("ssh-ed25519 AAAA\nssh-ed25519 INTRUDER",)},
        {"host_key_public": "a\nb"},
        {"ca_certificates": (("../x", "PEM"),)},
        {"ca_certificates": (("a/b", "PEM"),)},
        {"ca_certificates": ((".", "PEM"),)},
        {"ca_certificates": (("a", "PEM\x7f"),)},
        {"interfaces": (Interface("mac", "10.0.0.1/8\nx"),)},
        {"interfaces": (Interface("mac", nameservers=("1.1.1.1 x",)),)},
        {"mounts": (Mount("a\nb", "/x", "9p"),)},
        {"mounts": (Mount("a", "", "9p"),)},
    ],
)
def test_what_cant_stand_in_a_seed_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Usage):
        seed.write(tmp_path / "seed.iso", dataclasses.replace(PLAIN, **change))
    assert not list(tmp_path.iterdir())


def test_host_names_and_kernel_settings() -> None:
    given = seed.contents(dataclasses.replace(PLAIN, hosts="10.0.0.1 a\n", sysctls="vm.x=1\n"))
    assert (given["machineos/hosts"], given["machineos/sysctl.conf"]) == ("10.0.0.1 a\n", "vm.x=1\n")
    assert not {"machineos/hosts", "machineos/sysctl.conf"} & seed.contents(PLAIN).keys()
