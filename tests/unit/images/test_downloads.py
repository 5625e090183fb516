"""Downloads from a server that breaks off, changes its mind, or has something else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from web_server import Quiet, serving

from machine.errors import ImageCorrupt, MachineError, Usage
from machine.images import downloads
from machine.images.downloads import Source, fetched, source

CONTENT = bytes(range(256)) * 4096


class Server:
    """What it does, and what it was asked."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.breaks_after: list[int] = []
        self.ranges = True
        self.status = 0
        self.asked: list[str | None] = []
        self.url = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers["Range"])
            if state.status:
                return self.send_error(state.status)
            begin = 0
            if state.ranges and self.headers["Range"]:
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if begin >= len(state.content):
                    return self.send_error(416)
            rest = state.content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.breaks_after.pop(0)] if state.breaks_after else rest)
            return None

    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with serving(Handler) as port:
        state.url = f"http://127.0.0.1:{port}/an image.qcow2".replace(" ", "%20")
        yield state


def wanted(server: Server, algorithm: str = "sha256", content: bytes = CONTENT) -> Source:
    return Source(server.url, algorithm, hashlib.new(algorithm, content).hexdigest())


def get(what: Source, folder: Path, told: list[tuple[int, int | None]] | None = None) -> bytes:
    with fetched(what, folder, lambda *numbers: (told if told is not None else []).append(numbers)) as path:
        return path.read_bytes()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_file_is_fetched_and_leaves_nothing_beside_it(server: Server, tmp_path: Path, algorithm: str) -> None:
    told: list[tuple[int, int | None]] = []
    assert get(wanted(server, algorithm), tmp_path, told) == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == []


def test_it_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [300_000, 500_000]
    assert get(wanted(server), tmp_path) == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=800000-"]


def test_another_process_goes_on_with_a_half(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.breaks_after = [400_000, *[0] * downloads.ATTEMPTS]
    with pytest.raises(MachineError, match="can't be downloaded") as caught:
        get(wanted(server), tmp_path)
    assert "continues where it stopped" in caught.value.hint
    assert [path.stat().st_size for path in downloads.left_over(tmp_path)] == [400_000]
    server.asked.clear()
    assert get(wanted(server), tmp_path) == CONTENT
    assert server.asked == ["bytes=400000-"]


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks_after = [300_000]
    assert get(wanted(server), tmp_path) == CONTENT


def test_a_half_of_another_version_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.content = b"x" * len(CONTENT)
    server.breaks_after = [400_000, *[0] * downloads.ATTEMPTS]
    with pytest.raises(MachineError):
        get(wanted(server), tmp_path)
    server.content = CONTENT
    assert get(wanted(server), tmp_path) == CONTENT


def test_what_has_another_digest_doesnt_count(server: Server, tmp_path: Path) -> None:
    server.content = b"something else"
    with pytest.raises(ImageCorrupt, match="has another digest than expected: sha256="):
        get(wanted(server), tmp_path)
    assert downloads.left_over(tmp_path) == []


def test_all_of_it_was_there_already(server: Server, tmp_path: Path) -> None:
    server.breaks_after = [len(CONTENT)]
    server.content = CONTENT + b"?"
    with pytest.raises(ImageCorrupt):
        get(wanted(server), tmp_path)
    server.content = CONTENT
    with fetched(wanted(server), tmp_path, lambda *_: None) as path:
        half = path
        path.write_bytes(CONTENT)
    half.write_bytes(CONTENT)
    server.asked.clear()
    assert get(wanted(server), tmp_path) == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (503, downloads.ATTEMPTS)])
def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path, status: int, times: int) -> None:
    server.status = status
    with pytest.raises(MachineError, match="can't be downloaded"):
        get(wanted(server), tmp_path)
    assert len(server.asked) == times


def test_nobody_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MachineError, match="nothing listens there"):
        get(Source("http://127.0.0.1:1/x", "sha256", "0" * 64), tmp_path)


def test_a_file_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert get(Source(f"file://{tmp_path}/here", "sha256", digest), tmp_path / "cache") == CONTENT


def test_a_source_needs_a_digest() -> None:
    assert source(f"https://h/a.img#sha512={'AB' * 64}") == Source("https://h/a.img", "sha512", "ab" * 64)
    for text in ("https://h/a", "https://h/a#sha256=", "https://h/a#md5=" + "0" * 32, "https://h/a#sha256=" + "z" * 64):
        with pytest.raises(Usage, match="the URL has no digest: https://h/a"):
            source(text)
    with pytest.raises(Usage, match="invalid URL"):
        source("ftp://h/a#sha256=" + "0" * 64)
