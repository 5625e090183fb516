"""The seed: a small ISO that gives a new guest its identity and settings.

Two readers: cloud-init in a cloud image (the NoCloud data source: meta-data, user-data, network-config) and machineos
(the folder machineos/, plain files that busybox reads line by line). It holds private keys: the file is 0600.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from machine import files
from machine.errors import Usage
from machine.render import render

LABEL = "CIDATA"
# A guest doesn't notice a changed disk as long as its size is the same. So a clone of a running machine finds its own
# seed in place of the template's.
SIZE = 1 << 20
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_CERTIFICATE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,50}")
_WORD = re.compile(r"[A-Za-z0-9.:/_-]+")


@dataclass(frozen=True)
class Tls:
    """The server's side, each in PEM."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True)
class Interface:
    """A network adapter, known by its MAC. address in CIDR form ("192.168.99.100/24"), "" for DHCP."""

    mac: str
    address: str = ""
    gateway: str = ""
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lan:
    """The card that leads to other machines, by the guest's name for it; without an address it leads nowhere.

    address in CIDR form; mtu in bytes; server: the DNS server that knows the machines' names.
    """

    card: str
    mac: str = ""
    address: str = ""
    mtu: int = 0
    server: str = ""


@dataclass(frozen=True)
class Mount:
    """A line of fstab: source is a 9p or virtiofs tag, or the name of a VirtualBox share."""

    source: str
    target: str
    type: str
    options: str = "defaults"


@dataclass(frozen=True)
class Seed:
    """instance_id: the machine's uuid; cloud-init runs again when it changes.

    tls: None for a daemon that speaks plain HTTP. docker_env and environment: lines KEY=VALUE.
    ca_certificates: (name, PEM) of CAs for the guest to trust. interfaces: all adapters of the machine if one of them
    has a static address; else empty, and the guest uses DHCP on each. lan: None for a machine without such a card; only
    machineos has one. hosts: lines "IP NAME"; sysctls: lines KEY=VALUE.
    """

    instance_id: str
    hostname: str
    user: str
    authorized_keys: tuple[str, ...]
    host_key: str
    host_key_public: str
    daemon_json: str
    tls: Tls | None
    docker_env: str = ""
    environment: str = ""
    ca_certificates: tuple[tuple[str, str], ...] = ()
    interfaces: tuple[Interface, ...] = ()
    lan: Lan | None = None
    hosts: str = ""
    sysctls: str = ""
    mounts: tuple[Mount, ...] = ()


def write(path: Path, seed: Seed) -> None:
    """Write the ISO (label CIDATA, Rock Ridge and Joliet names). Raises Usage for a value that it can't hold."""
    raw = image(contents(seed))
    files.write(path, raw.ljust(-(-len(raw) // SIZE) * SIZE, b"\0"))


def overwrite(path: Path, seed: Seed) -> None:
    """As `write`, for a running machine: its hypervisor has the file open, and the guest reads it when it reboots."""
    raw = image(contents(seed))
    files.overwrite(path, raw.ljust(-(-len(raw) // SIZE) * SIZE, b"\0"))


def contents(seed: Seed) -> dict[str, str]:
    """The files of the seed, by their path in it. Raises Usage as `write` does."""
    _check(seed)
    nocloud = {
        "meta-data": render("seed/meta-data.yaml.j2", instance_id=seed.instance_id, hostname=seed.hostname),
        "user-data": render(
            "seed/user-data.yaml.j2",
            hostname=seed.hostname,
            user=seed.user,
            authorized_keys=[key.strip() for key in seed.authorized_keys],
            host_key=seed.host_key,
            host_key_public=seed.host_key_public.strip(),
            ca_certificates=[pem for _, pem in seed.ca_certificates],
            mounts=seed.mounts,
        ),
    }
    if seed.interfaces:
        nocloud["network-config"] = render("seed/network-config.yaml.j2", interfaces=seed.interfaces)
    return nocloud | {f"machineos/{name}": text for name, text in _machineos(seed).items()}


def image(contents: dict[str, str]) -> bytes:
    """An ISO 9660 image of files, given by their paths, with Rock Ridge and Joliet names."""
    import pycdlib  # 60 ms, and only create needs it

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    folders = sorted({str(parent) for name in contents for parent in PurePosixPath(name).parents if parent.name})
    short = {"": ""}
    for number, folder in enumerate(folders):
        parent, _, name = folder.rpartition("/")
        short[folder] = f"{short[parent]}/D{number}"
        iso.add_directory(short[folder], rr_name=name, joliet_path=f"/{folder}", file_mode=0o040700)
    for number, (path, text) in enumerate(contents.items()):
        folder, _, name = path.rpartition("/")
        raw = text.encode()
        iso.add_fp(
            BytesIO(raw),
            len(raw),
            f"{short[folder]}/F{number}.;1",
            rr_name=name,
            joliet_path=f"/{path}",
            file_mode=0o100600,
        )
    out = BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def read(path: Path) -> dict[str, str]:
    """The files of a seed that `write` wrote, by their path in it."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    try:
        found = {}
        for folder, _, names in iso.walk(rr_path="/"):
            for name in names:
                content = BytesIO()
                iso.get_file_from_iso_fp(content, rr_path=f"{folder.rstrip('/')}/{name}")
                found[f"{folder}/{name}".lstrip("/")] = content.getvalue().decode()
        return found
    finally:
        iso.close()


def _machineos(seed: Seed) -> dict[str, str]:
    plain = {
        "hostname": seed.hostname + "\n",
        "authorized_keys": "".join(f"{key.strip()}\n" for key in seed.authorized_keys),
        "ssh_host_ed25519_key": seed.host_key,
        "ssh_host_ed25519_key.pub": seed.host_key_public.strip() + "\n",
        "daemon.json": seed.daemon_json,
        "docker.env": seed.docker_env,
        "environment": seed.environment,
    }
    if seed.tls:
        plain |= {"tls/ca.pem": seed.tls.ca, "tls/server.pem": seed.tls.cert, "tls/server-key.pem": seed.tls.key}
    else:
        plain["no-tls"] = ""
    plain |= {f"ca/{name}.crt": pem for name, pem in seed.ca_certificates}
    if static := [interface for interface in seed.interfaces if interface.address]:
        plain["network"] = _network_line(static[0])
    if seed.lan:
        plain["lan"] = _lan_line(seed.lan)
    if seed.hosts:
        plain["hosts"] = seed.hosts
    if seed.sysctls:
        plain["sysctl.conf"] = seed.sysctls
    if seed.mounts:
        plain["mounts"] = "".join(map(mount_line, seed.mounts))
    return plain


def _network_line(interface: Interface) -> str:
    """ADDRESS GATEWAY NAMESERVER…, split by blanks, "-" for no gateway; machineos gives it to its second adapter."""
    return " ".join((interface.address, interface.gateway or "-", *interface.nameservers)) + "\n"


def _lan_line(lan: Lan) -> str:
    """CARD MAC ADDRESS MTU SERVER, or CARD."""
    return " ".join(filter(None, (lan.card, lan.mac, lan.address, str(lan.mtu or ""), lan.server))) + "\n"


def mount_line(mount: Mount) -> str:
    """The first four fields of fstab(5), where a blank in a field is \\040."""
    fields = (mount.source, mount.target, mount.type, mount.options)
    return " ".join(field.replace("\\", "\\134").replace(" ", "\\040") for field in fields) + "\n"


def _check(seed: Seed) -> None:
    if not _USER.fullmatch(seed.user):
        raise Usage(f"invalid user {seed.user!r}", hint="use letters, digits, - and _, for example docker")
    for line in (seed.instance_id, seed.hostname, seed.host_key_public.strip(), *map(str.strip, seed.authorized_keys)):
        _check_line(line, "of the seed")
    for name, pem in seed.ca_certificates:
        # One invalid character would make all of user-data unreadable for YAML.
        for line in filter(None, map(str.strip, pem.split("\n"))):
            _check_line(line, f"of the CA {name!r}")
        if not _CERTIFICATE_NAME.fullmatch(name):
            raise Usage(f"invalid name of a CA {name!r}", hint="use letters, digits, dots, - and _")
    for interface in seed.interfaces:
        for word in filter(None, (interface.mac, interface.address, interface.gateway, *interface.nameservers)):
            if not _WORD.fullmatch(word):
                raise Usage(f"invalid network setting {word!r}", hint="give an address: 192.168.99.100/24")
    for mount in seed.mounts:
        for field in (mount.source, mount.target, mount.type, mount.options):
            _check_line(field, "of a mount")


def _check_line(text: str, where: str) -> None:
    if not text or not text.isprintable():
        raise Usage(f"invalid line {where}: {text!r}", hint="use printable characters on one line")
