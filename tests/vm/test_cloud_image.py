"""A publisher's cloud image: served over HTTP, fetched with a broken download, booted by QEMU, made a Docker host."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from web_server import Quiet, serving

from tests import testbed
from tests.testbed import Store, execute
from tests.vm import cloud_image

# Under emulation cloud-init and apt take ten minutes.
pytestmark = pytest.mark.slow

# Seconds, for both.
READY = 2000.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the publisher has it, with its digest. The first connection breaks after 5 MB."""
    testbed.say("building the cloud image, unless it is there")
    content = cloud_image.image().read_bytes()
    breaks = [5_000_000]

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"] or "bytes=0-"
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            self.wfile.write(content[begin : begin + breaks.pop()] if breaks else content[begin:])

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/cloud.qcow2#sha256={hashlib.sha256(content).hexdigest()}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("images"))
    yield store
    store.close()


def test_a_wrong_digest_is_refused(store: Store, url: str) -> None:
    wrong = f"{url.partition('#')[0]}#sha256={'0' * 64}"
    done = store.machine("image", "pull", wrong, code=1)
    assert "has another digest than expected" in done.err
    assert store.machine("image", "ls", "-q").out == ""


def test_it_becomes_a_docker_host(store: Store, url: str) -> None:
    options = ["--image", url, "--memory", "1G", "--disk", "6G", "--timeout", "900"]
    testbed.say("machine create --image http://…")
    done = store.machine("create", *options, "cloud", timeout=READY)
    testbed.say(f"it was ready after {done.seconds:.0f} s")
    assert "note: installed Docker" in done.err
    store.note("cloud")
    info = json.loads(execute(["docker", "info", "--format", "{{json .}}"], env=store.docker_env("cloud")).out)
    assert info["Name"] == "cloud"
    assert info["OperatingSystem"].startswith("Debian")
    # cloud-init has grown the root to the disk that was asked for.
    size = int(store.machine("ssh", "cloud", "df", "-Pm", "/", "|", "tail", "-n1").out.split()[1])
    assert size > 5000
    assert store.machine("provision", "cloud").out == "cloud: there was nothing to change\n"


def test_its_disk_is_its_own(store: Store) -> None:
    home = store.folder_of("cloud")
    found = json.loads(execute(["qemu-img", "info", "-U", "--output=json", home / "disk.qcow2"], env=store.env).out)
    assert found["backing-filename"] == "base.img"
    assert Path(home / "base.img").exists()
