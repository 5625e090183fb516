from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.platform == "win32":
    collect_ignore_glob = ["test_*"]
else:
    from nfs_client import Client, Served

    @dataclass(frozen=True)
    class Share:
        """A folder of the host, the client that has mounted it, and the handle of its top."""

        host: Path
        client: Client
        top: bytes

    @pytest.fixture
    def home(tmp_path: Path) -> Path:
        """Where the server keeps what handles mean."""
        folder = tmp_path / "machine"
        folder.mkdir()
        return folder

    @pytest.fixture
    def host(tmp_path: Path) -> Path:
        folder = tmp_path / "shared"
        folder.mkdir()
        return folder

    @pytest.fixture(autouse=True)
    def no_umask() -> Iterator[None]:
        """As in the server's own process, whatever the one who runs the tests has."""
        old = os.umask(0)
        yield
        os.umask(old)

    @pytest.fixture
    def share(home: Path, host: Path) -> Iterator[Share]:
        with Served(home, str(host)) as client:
            yield Share(host, client, client.mount(host))
