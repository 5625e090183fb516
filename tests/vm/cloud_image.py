"""A cloud image as a publisher has it: Debian with cloud-init, on a partitioned disk with a boot loader, in qcow2.

Built with mmdebstrap from the packages of this host's own Debian, and kept between runs.
"""

from __future__ import annotations

from pathlib import Path

from tests.vm.debian_guest import built

PACKAGES = (
    "systemd-sysv,openssh-server,sudo,linux-image-amd64,ca-certificates,dbus,udev,kmod,iproute2,zstd,"
    "cloud-init,cloud-guest-utils,e2fsprogs,fdisk,netbase,grub-pc-bin,grub-common"
)
AFTER = """
set -e
cp -r /etc/apt/apt.conf.d/. "$1/etc/apt/apt.conf.d/"
rm -f "$1"/etc/apt/apt.conf.d/docker-* "$1"/etc/ssh/ssh_host_* "$1"/etc/machine-id
touch "$1/etc/machine-id"
rm -f "$1/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$1/etc/resolv.conf"
echo '/dev/vda1 / ext4 defaults 0 1' >"$1/etc/fstab"
printf '[Match]\\nType=ether\\n[Network]\\nDHCP=ipv4\\n' >"$1/etc/systemd/network/ether.network"
echo 'network: {config: disabled}' >"$1/etc/cloud/cloud.cfg.d/network.cfg"
echo 'datasource_list: [NoCloud]' >"$1/etc/cloud/cloud.cfg.d/source.cfg"
printf 'preserve_sources_list: true\\napt_preserve_sources_list: true\\n' >"$1/etc/cloud/cloud.cfg.d/apt.cfg"
chroot "$1" systemctl enable systemd-networkd
chroot "$1" systemctl mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer
rm -rf "$1"/var/cache/apt/archives/*.deb
cat >"$1/grub.cfg" <<'END'
set root=(hd0,msdos1)
linux /vmlinuz root=/dev/vda1 rw console=ttyS0 quiet
initrd /initrd.img
boot
END
chroot "$1" grub-mkimage -O i386-pc -o /core.img -c /grub.cfg -p /boot/grub biosdisk part_msdos ext2 linux boot
cp "$1/core.img" "$1/usr/lib/grub/i386-pc/boot.img" "$OUT"
rm "$1/core.img" "$1/grub.cfg"
cp -a --one-file-system "$1" "$OUT/root"
truncate -s 3G "$OUT/raw"
# The boot code before the partition table; the core where the code looks for it, in the gap before the partition.
dd if="$OUT/boot.img" of="$OUT/raw" bs=440 count=1 conv=notrunc status=none
# One partition: bootable, of type 83, from sector 2048 to the end.
printf '\\200\\376\\377\\377\\203\\376\\377\\377\\000\\010\\000\\000\\000\\370\\137\\000' |
    dd of="$OUT/raw" bs=1 seek=446 conv=notrunc status=none
printf '\\125\\252' | dd of="$OUT/raw" bs=1 seek=510 conv=notrunc status=none
dd if="$OUT/core.img" of="$OUT/raw" bs=512 seek=1 conv=notrunc status=none
mke2fs -q -t ext4 -E offset=1048576 -d "$OUT/root" "$OUT/raw" 3144704k
rm -rf "$OUT/root"
qemu-img convert -O qcow2 "$OUT/raw" "$OUT/cloud.qcow2"
rm "$OUT/raw" "$OUT/boot.img" "$OUT/core.img"
"""


def image() -> Path:
    return built("cloud", PACKAGES, AFTER) / "cloud.qcow2"
