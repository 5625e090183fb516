import stat
import subprocess
from pathlib import Path

import pytest

from machine.ssh import keys


def ssh_keygen(*words: str | Path) -> str:
    return subprocess.run(["ssh-keygen", *words], check=True, capture_output=True, text=True).stdout


def test_openssh_reads_both_halves(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    keys.generate(path, "docker@dev")
    public = path.with_name("id_ed25519.pub")
    bits, fingerprint, comment, kind = ssh_keygen("-l", "-f", public).split()
    assert (bits, comment, kind) == ("256", "docker@dev", "(ED25519)")
    assert fingerprint == ssh_keygen("-l", "-f", path).split()[1]
    assert ssh_keygen("-y", "-f", path).split()[:2] == public.read_text().split()[:2]
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, public)] == [0o600, 0o644]


def test_each_key_is_another(tmp_path: Path) -> None:
    for name in ("a", "b"):
        keys.generate(tmp_path / name, "")
    assert (tmp_path / "a.pub").read_text() != (tmp_path / "b.pub").read_text()
    assert len((tmp_path / "a.pub").read_text().split()) == 2


def test_a_comment_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="comment"):
        keys.generate(tmp_path / "key", "me\nssh-ed25519 AAAA intruder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("host", "port", "looked_up"),
    [("127.77.0.2", 22, "127.77.0.2"), ("127.77.0.2", 2222, "[127.77.0.2]:2222"), ("fd00::2", 2222, "[fd00::2]:2222")],
)
def test_openssh_finds_the_pin(tmp_path: Path, host: str, port: int, looked_up: str) -> None:
    keys.generate(tmp_path / "key", "root@dev")
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(keys.known_hosts_line(host, port, (tmp_path / "key.pub").read_text()) + "\n")
    assert looked_up in ssh_keygen("-F", looked_up, "-f", known_hosts)
    assert "root@dev" not in known_hosts.read_text()
