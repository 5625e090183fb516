import io
import tarfile
from pathlib import Path

import pytest
from machine.isos.machineos import packages


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "packages.tar"
    with tarfile.open(path, "w") as archive:
        for name, time, mode in [
            ("./usr/bin/sudo", 300, 0o4755),
            ("./usr/share/doc/sudo/copyright", 900, 0o644),
            ("./var/cache/apt/archives/sudo_1%3a1.9-3+deb13u1_amd64.deb", 999, 0o644),
            ("./etc/generated", 999, 0o644),
        ]:
            member = tarfile.TarInfo(name)
            member.mtime, member.mode, member.size = time, mode, 2
            archive.addfile(member, io.BytesIO(b"hi"))
    return path


def test_unpack_keeps_modes_and_tells_the_newest_time(tar: Path, tmp_path: Path) -> None:
    assert packages.unpack(tar, tmp_path / "out") == 300
    assert (tmp_path / "out/usr/bin/sudo").stat().st_mode & 0o7777 == 0o4755
    assert not (tmp_path / "out/usr/share/doc").exists()
    assert not (tmp_path / "out/var").exists()


def test_versions_come_from_the_names_of_the_packages(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[object]] = []
    monkeypatch.setattr(packages, "run", lambda argv, **_: calls.append(argv))
    assert packages.fetch("x86_64", tar) == {"sudo": "1:1.9-3+deb13u1"}
    assert "--architectures=amd64" in calls[0]
    assert calls[0][-2:] == ["trixie", tar]
