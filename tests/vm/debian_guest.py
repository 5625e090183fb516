"""An ordinary Debian server with systemd and OpenSSH and without Docker, as somebody's host: built with mmdebstrap from
the packages of this host's own Debian, booted by QEMU without a boot loader.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from machine.ssh import keys
from tests.testbed import environment, execute, free_port

USER = "admin"
# Seconds; on processors that others use too.
BUILD, BOOT = 900.0, 600.0
PACKAGES = "systemd-sysv,openssh-server,sudo,linux-image-amd64,ca-certificates,dbus,udev,kmod,iproute2,zstd"
# The initrd needs the disk only: a tenth of its usual size, which matters where it is unpacked by emulation.
BEFORE = """
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf 'MODULES=list\\nCOMPRESS=zstd\\n' >"$1/etc/initramfs-tools/conf.d/test"
printf 'virtio_pci\\nvirtio_blk\\next4\\n' >"$1/usr/share/initramfs-tools/modules.d/test"
"""
AFTER = """
set -e
cp -r /etc/apt/apt.conf.d/. "$1/etc/apt/apt.conf.d/"
rm -f "$1"/etc/apt/apt.conf.d/docker-*
echo host >"$1/etc/hostname"
printf '127.0.0.1 localhost host\\n' >"$1/etc/hosts"
rm -f "$1/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$1/etc/resolv.conf"
printf '[Match]\\nType=ether\\n[Network]\\nDHCP=ipv4\\n' >"$1/etc/systemd/network/ether.network"
chroot "$1" systemctl enable systemd-networkd
chroot "$1" systemctl mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer
chroot "$1" useradd -m -s /bin/bash -G sudo admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/admin"
echo 'UseDNS no' >"$1/etc/ssh/sshd_config.d/test.conf"
rm -rf "$1"/var/cache/apt/archives/*.deb
cp "$1"/boot/vmlinuz-* "$OUT/kernel"
cp "$1"/boot/initrd.img-* "$OUT/initrd"
# Without /proc and /sys, which are mounted here.
cp -a --one-file-system "$1" "$OUT/root"
mke2fs -q -t ext4 -d "$OUT/root" "$OUT/disk" 3G
rm -rf "$OUT/root"
"""


@dataclass
class Guest:
    """folder holds its disk, its console, and the private key that opens it; the ports are of this host's loopback."""

    folder: Path
    ssh_port: int
    docker_port: int
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def console(self) -> str:
        return (self.folder / "console").read_text(errors="replace")

    def shell(self, command: str, *, code: int | None = 0, timeout: float = 120) -> str:
        """Run a command on it by plain ssh, past everything that is tested."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        # A server that reboots doesn't always say good bye.
        options += ["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        options += ["-i", str(self.key), "-p", str(self.ssh_port)]
        words = ["ssh", "-F", "none", *options, f"{USER}@127.0.0.1", command]
        return execute(words, env=environment(), code=code, timeout=timeout).out

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)


def image() -> Path:
    """The folder of its disk, kernel and initrd."""
    return built("debian", PACKAGES, AFTER)


def built(kind: str, packages: str, after: str) -> Path:
    """The folder of a Debian system that was built of packages, and what the hook `after` put into $OUT.

    It is built once for each recipe, and kept between runs.
    """
    recipe = hashlib.sha256(f"{packages}{BEFORE}{after}{_suite()}".encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"machine-tests-{os.getuid()}" / f"{kind}-{recipe}"
    if folder.exists():
        return folder
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"]
        words += [f"--essential-hook={BEFORE}", f"--customize-hook={after}"]
        execute([*words, _suite(), "/dev/null"], env=environment(OUT=str(new)), timeout=BUILD)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def boot(folder: Path, *, memory_mib: int = 1024) -> Guest:
    """Start one in folder; its SSH server and its Docker, when there is one, get ports of 127.0.0.1."""
    made = image()
    execute(["cp", "--sparse=always", made / "disk", folder / "disk"], env=environment(), timeout=120)
    keys.generate(folder / "key", "test")
    _authorize(folder / "disk", Path(f"{folder}/key.pub"))
    ssh_port, docker_port = free_port(), free_port()
    forwards = f"hostfwd=tcp:127.0.0.1:{ssh_port}-:22,hostfwd=tcp:127.0.0.1:{docker_port}-:{docker_port}"
    words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"]
    words += ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-smp", "2", "-m", str(memory_mib)]
    words += ["-kernel", str(made / "kernel"), "-initrd", str(made / "initrd")]
    words += ["-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=1 mitigations=off"]
    words += ["-drive", f"file={folder}/disk,format=raw,if=virtio,cache=unsafe", "-serial", f"file:{folder}/console"]
    words += ["-netdev", f"user,id=net,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
    words += ["-device", "virtio-rng-pci"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Guest(folder, ssh_port, docker_port, process)


def _authorize(disk: Path, public: Path) -> None:
    """Put the key into the file system, which nobody has mounted."""
    place = f"/home/{USER}/.ssh"
    script = f"mkdir {place}\nwrite {public} {place}/authorized_keys\n"
    for path, mode in ((place, "040700"), (f"{place}/authorized_keys", "0100600")):
        script += f"sif {path} mode {mode}\nsif {path} uid 1000\nsif {path} gid 1000\n"
    execute(["debugfs", "-w", "-f", "-", disk], env=environment(), timeout=120, input=script.encode())


def _suite() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    found = [line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")]
    return found[0] if found and "ID=debian" in lines else "stable"
