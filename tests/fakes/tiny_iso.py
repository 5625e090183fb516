"""An ISO as small as it gets, with the files that are taken out of machineos."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pycdlib

ABOUT = {"architecture": "x86_64", "version": "0.1", "command_line": "quiet root=x", "packages": 3}


def iso(path: Path, about: object = ABOUT, *, rock_ridge: str | None = "1.09", leave_out: str = "") -> Path:
    files = {
        "/boot/vmlinuz": b"kernel" * 1000,
        "/boot/initrd.img": b"initrd" * 5000,
        "/machineos/about.json": about if isinstance(about, bytes) else json.dumps(about).encode(),
    }
    new = pycdlib.PyCdlib()
    new.new(interchange_level=3, rock_ridge=rock_ridge)
    for number, name in enumerate(("boot", "machineos")):
        new.add_directory(f"/D{number}", rr_name=name if rock_ridge else None)
    for number, (name, content) in enumerate(files.items()):
        if name != leave_out:
            folder = "/D0" if name.startswith("/boot") else "/D1"
            rr_name = name.rpartition("/")[2] if rock_ridge else None
            new.add_fp(BytesIO(content), len(content), f"{folder}/F{number}.;1", rr_name=rr_name)
    new.write(str(path))
    new.close()
    return path
