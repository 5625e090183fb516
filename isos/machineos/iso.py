"""The ISO: boots by BIOS (isolinux) and by UEFI (shim and GRUB, signed by Debian), from CD, disk or USB stick."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from machine.run import run

from . import patience
from .lists import HERE

LABEL = "MACHINEOS"
EFI = {
    "x86_64": ("bootx64.efi", "shimx64.efi.signed", "grubx64.efi", "x86_64-efi-signed/gcdx64.efi.signed"),
    "aarch64": ("bootaa64.efi", "shimaa64.efi.signed", "grubaa64.efi", "arm64-efi-signed/gcdaa64.efi.signed"),
}


def make(tree: Path, packages: Path, iso: Path, *, arch: str, cmdline: str, time: int) -> None:
    """Write the ISO: the files of tree, boot loaders of the unpacked packages. Equal contents give equal bytes."""
    boot = tree / "boot"
    write_menu(boot / "grub/grub.cfg", "grub.cfg", cmdline)
    write_efi(boot / "efi.img", packages, arch, time)
    argv: list[str | Path] = ["xorriso", "-as", "mkisofs", "-o", iso, "-V", LABEL, "-r", "-J", "-joliet-long"]
    if arch == "x86_64":
        write_menu(boot / "isolinux/isolinux.cfg", "isolinux.cfg", cmdline)
        argv += bios_options(boot / "isolinux", packages)
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (time, time))
    argv += ["-eltorito-alt-boot", "-e", "boot/efi.img", "-no-emul-boot", "-isohybrid-gpt-basdat"]
    # Without what is added for CD drives that read ahead, and for partitions that end with a cylinder: up to 1.3 MB.
    argv += ["-no-pad", "-partition_cyl_align", "off", tree]
    run(argv, env={"SOURCE_DATE_EPOCH": str(time), "TZ": "UTC"}, timeout=patience.WRITE)


def write_menu(path: Path, template: str, cmdline: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        (HERE / "boot" / template).read_text(encoding="utf-8").replace("@CMDLINE@", cmdline), encoding="utf-8"
    )


def bios_options(folder: Path, packages: Path) -> list[str | Path]:
    lib = packages / "usr/lib"
    shutil.copy(lib / "ISOLINUX/isolinux.bin", folder)
    shutil.copy(lib / "syslinux/modules/bios/ldlinux.c32", folder)
    return [
        "-b",
        "boot/isolinux/isolinux.bin",
        "-c",
        "boot/isolinux/boot.cat",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
        "-isohybrid-mbr",
        lib / "ISOLINUX/isohdpfx.bin",
    ]


def write_efi(image: Path, packages: Path, arch: str, time: int) -> None:
    """A FAT image with shim as the default loader and GRUB beside it."""
    shim_name, shim, grub_name, grub = EFI[arch]
    files = {shim_name: packages / "usr/lib/shim" / shim, grub_name: packages / "usr/lib/grub" / grub}
    size_kib = sum(path.stat().st_size for path in files.values()) // 1024 + 128
    image.write_bytes(bytes((size_kib + 15) // 16 * 16 * 1024))
    env = {"SOURCE_DATE_EPOCH": str(time), "TZ": "UTC"}
    run(["mformat", "-i", image, "-N", "4d414348", "-v", LABEL, "::"], env=env)
    run(["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"], env=env)
    for name, path in files.items():
        run(["mcopy", "-i", image, path, f"::/EFI/BOOT/{name}"], env=env)
