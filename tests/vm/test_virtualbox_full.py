"""`machine create --driver virtualbox` to `docker version` over TLS, on a VirtualBox whose processor is interpreted.

Takes about an hour of one processor, so it isn't part of the other tests: make test-virtualbox-full.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from virtualbox_rig import Rig, rig

__all__ = ["rig"]

WANTED = "MACHINE_TEST_VIRTUALBOX_FULL"
DEADLINE = 4 * 3600

pytestmark = [
    pytest.mark.skipif(not os.environ.get(WANTED), reason="takes an hour or more: make test-virtualbox-full"),
    pytest.mark.timeout(DEADLINE + 600),
]


def test_from_create_to_docker_version(rig: Rig) -> None:
    images = Path(os.environ.get("MACHINE_IMAGES_PATH") or Path.home() / ".machine" / "images")
    if not (images / "machineos").exists():
        pytest.skip("there is no machineos in the cache: machine iso build")
    # What VirtualBox is to see must lie below its folder.
    shutil.copytree(images, rig.share / "images", ignore=shutil.ignore_patterns("unpacked"))
    shared = rig.share / "shared"
    shared.mkdir()
    (shared / "hello").write_text("from the host")
    store = rig.share / "store"
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MACHINE_", "DOCKER_"))},
        "MACHINE_STORAGE_PATH": str(store),
        "MACHINE_IMAGES_PATH": str(rig.share / "images"),
    }

    def machine(*words: str | Path) -> str:
        command = [sys.executable, "-m", "machine", *words]
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=DEADLINE
        )
        assert done.returncode == 0, words
        return done.stdout

    began = time.monotonic()
    machine(
        *("create", "--driver", "virtualbox", "--virtualbox-memory", "1024", "--cpus", "1", "--timeout", str(DEADLINE)),
        *("--virtualbox-no-vtx-check", "--virtualbox-share-folder", f"{shared}:/mnt/host", "default"),
    )
    print(f"Docker and SSH answer: {time.monotonic() - began:.0f} s")
    assert machine("status", "default").splitlines()[0] == "Running"
    environ |= dict(line.removeprefix("export ").replace('"', "").split("=", 1) for line in exports(machine))
    version = ""
    for _ in range(2):
        version = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        ).stdout
    print(f"docker version: {version.strip()}, {time.monotonic() - began:.0f} s")
    assert machine("ssh", "default", "cat", "/mnt/host/hello") == "from the host"
    machine("rm", "-y", "default")
    assert rig.leftovers() == []
    assert not (store / "machines" / "default").exists()


def exports(machine: object) -> list[str]:
    assert callable(machine)
    return [line for line in machine("env", "--shell", "bash", "default").splitlines() if line.startswith("export ")]
