"""The systems that machine knows: a class for each that holds only what differs."""

from __future__ import annotations

from machine.errors import MachineError
from machine.guest.init_systems import OpenRc, Systemd
from machine.guest.machineos_provisioner import Machineos
from machine.guest.provisioners import Provisioner


class Debian(Systemd):
    ids = frozenset({"debian", "raspbian", "ubuntu"})
    _QUIET = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y")
    # Where the kernel has AppArmor, Docker starts no container without its tool.
    install = ((*_QUIET, "update"), (*_QUIET, "install", "--no-install-recommends", "docker.io", "apparmor"))
    renew = install


class Fedora(Systemd):
    ids = frozenset({"fedora"})
    install = (("dnf", "-q", "-y", "install", "moby-engine"),)
    renew = (("dnf", "-q", "-y", "upgrade", "moby-engine"),)


class RedHat(Systemd):
    """No Docker is among their packages."""

    ids = frozenset({"rhel", "centos", "rocky", "almalinux", "ol"})
    install = ()
    renew = (("yum", "-q", "-y", "upgrade", "docker-ce"),)

    def _install(self) -> None:
        if not self.machine.options.get("install_url"):
            raise MachineError(
                "this distribution has no package of Docker",
                hint="give the URL of a script that installs it: --engine-install-url URL",
            )
        super()._install()


class AmazonLinux(Systemd):
    ids = frozenset({"amzn"})
    install = (("yum", "-q", "-y", "install", "docker"),)
    renew = (("yum", "-q", "-y", "upgrade", "docker"),)


class OpenSuse(Systemd):
    ids = frozenset({"opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "suse"})
    install = (("zypper", "-q", "-n", "install", "docker"),)
    renew = (("zypper", "-q", "-n", "update", "docker"),)


class Arch(Systemd):
    ids = frozenset({"arch", "archarm", "manjaro"})
    install = (("pacman", "-Sy", "--noconfirm", "--needed", "docker"),)
    renew = install


class Alpine(OpenRc):
    ids = frozenset({"alpine"})
    install = (("apk", "add", "-q", "docker"),)
    renew = (("apk", "add", "-q", "-u", "docker"),)

    def join_group(self, user: str) -> list[str]:
        return ["addgroup", user, "docker"]


KNOWN: tuple[type[Provisioner], ...] = (Machineos, Debian, Fedora, RedHat, AmazonLinux, OpenSuse, Arch, Alpine)
