import contextlib
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from machine.errors import CheckFailed, MachineError, Usage
from machine.paths import MachineFolder
from machine.tls import certs, lifetimes, x509

# What one of several commands does that begin at the same time, in the machine's folder that it is given.
ISSUE = """
import sys
from pathlib import Path
from machine.paths import MachineFolder
from machine.tls import certs
home = MachineFolder(Path(sys.argv[1]))
certs.issue_server(home.store / "certs", home, names=[], addresses=[])
"""
OWN = ("MACHINE_TLS_CA_CERT", "MACHINE_TLS_CA_KEY", "MACHINE_TLS_CLIENT_CERT", "MACHINE_TLS_CLIENT_KEY")


@pytest.fixture(autouse=True)
def nothing_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in OWN:
        monkeypatch.delenv(variable, raising=False)


def new_store(store: Path) -> MachineFolder:
    folder = MachineFolder(store / "machines" / "dev")
    folder.path.mkdir(parents=True)
    issue(folder)
    return folder


def issue(folder: MachineFolder) -> None:
    certs.issue_server(folder.store / "certs", folder, names=["docker.test"], addresses=["127.0.0.1", "fd00::2"])


def renew(folder: MachineFolder, **changes: Any) -> bool:
    asked: dict[str, Any] = {"names": ["docker.test"], "addresses": ["127.0.0.1", "fd00::2"]}
    return certs.renew_if_due(folder.store / "certs", folder, **{**asked, **changes})


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> MachineFolder:
    """A store that tests only read."""
    return new_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def folder(tmp_path: Path) -> MachineFolder:
    return new_store(tmp_path)


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("server", "sslserver", "sslclient"), ("cert", "sslclient", "sslserver")]
)
def test_openssl_accepts_each_for_its_own_purpose(original: MachineFolder, name: str, good: str, bad: str) -> None:
    verify: list[str | Path] = ["verify", "-x509_strict", "-CAfile", original.ca]
    assert openssl(*verify, "-purpose", good, original / f"{name}.pem").stdout.endswith(": OK\n")
    assert openssl(*verify, "-purpose", bad, original / f"{name}.pem").returncode != 0


@pytest.mark.parametrize("name", ["dev", "localhost", "docker.test"])
def test_names(original: MachineFolder, name: str) -> None:
    check: list[str | Path] = ["verify", "-CAfile", original.ca]
    assert openssl(*check, "-verify_hostname", name, original.server_cert).returncode == 0
    assert openssl(*check, "-verify_hostname", f"x-{name}", original.server_cert).returncode != 0


@pytest.mark.parametrize("address", ["127.0.0.1", "fd00::2"])
def test_addresses(original: MachineFolder, address: str) -> None:
    check: list[str | Path] = ["verify", "-CAfile", original.ca, "-verify_ip"]
    assert openssl(*check, address, original.server_cert).returncode == 0
    assert openssl(*check, "127.0.0.9", original.server_cert).returncode != 0


def test_extensions(original: MachineFolder) -> None:
    text = openssl("x509", "-in", original.server_cert, "-noout", "-text").stdout
    for part in (
        "Basic Constraints: critical\n                CA:FALSE",
        "Key Usage: critical\n                Digital Signature\n",
        "Extended Key Usage: \n                TLS Web Server Authentication\n",
        "Subject Key Identifier",
        "Authority Key Identifier",
        "CN = dev",
        "prime256v1",
    ):
        assert part in text
    text = openssl("x509", "-in", original.ca, "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text


def test_lifetimes(original: MachineFolder) -> None:
    now = datetime.now(UTC)
    assert timedelta(days=3649) < certs.expiry(original.ca) - now <= timedelta(days=3650)
    server = x509.read(original.server_cert)
    assert server.not_valid_after_utc - server.not_valid_before_utc <= timedelta(days=825)
    assert server.not_valid_before_utc < now - timedelta(hours=23)
    assert server.not_valid_after_utc == certs.expiry(original.server_cert)


def test_modes(original: MachineFolder) -> None:
    certificates = original.store / "certs"
    assert stat.S_IMODE(certificates.stat().st_mode) == 0o700
    for key in (certificates / "ca-key.pem", certificates / "key.pem", original.key, original.server_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for cert in (certificates / "ca.pem", certificates / "cert.pem", original.cert, original.server_cert):
        assert stat.S_IMODE(cert.stat().st_mode) == 0o644
    assert not (original / "ca-key.pem").exists()


def test_ten_processes_make_one_ca(tmp_path: Path) -> None:
    folders = [MachineFolder(tmp_path / "machines" / f"a{number}") for number in range(10)]
    for folder in folders:
        folder.path.mkdir(parents=True)
    # Not forked: this process has threads, whose locks would never be released in the copy.
    processes = [
        subprocess.Popen([sys.executable, "-c", ISSUE, folder.path], stdin=subprocess.PIPE) for folder in folders
    ]
    for process in processes:
        process.communicate(b"begin", timeout=120)
    assert [process.returncode for process in processes] == [0] * 10
    certificates = [path for folder in folders for path in (folder.server_cert, folder.cert)]
    assert openssl("verify", "-CAfile", tmp_path / "certs" / "ca.pem", *certificates).returncode == 0


@pytest.mark.parametrize("name", ["two words", "a\nb", "", "-x", "a..b", "{{ 7 * 7 }}"])
def test_what_is_no_name_is_refused(folder: MachineFolder, name: str) -> None:
    with pytest.raises(Usage, match="certificate"):
        certs.issue_server(folder.store / "certs", folder, names=[name], addresses=[])


def test_a_certificate_that_fits_is_left_alone(folder: MachineFolder) -> None:
    before = folder.server_cert.read_bytes()
    assert not renew(folder)
    assert folder.server_cert.read_bytes() == before


def damage_key(folder: MachineFolder) -> None:
    folder.server_key.write_bytes((folder.store / "certs" / "key.pem").read_bytes())


def cut_off(folder: MachineFolder) -> None:
    folder.server_cert.write_bytes(folder.server_cert.read_bytes()[:100])


def new_ca(folder: MachineFolder) -> None:
    certs.regenerate(folder.store / "certs", ca=True)


def forget(folder: MachineFolder) -> None:
    folder.server_cert.unlink()


@pytest.mark.parametrize("spoil", [damage_key, cut_off, new_ca, forget])
def test_a_certificate_that_is_unfit_is_renewed(folder: MachineFolder, spoil: Callable[[MachineFolder], None]) -> None:
    spoil(folder)
    assert renew(folder)
    assert not renew(folder)
    assert openssl("verify", "-CAfile", folder.ca, folder.server_cert, folder.cert).returncode == 0


def test_renewed_for_other_names_and_before_the_end(folder: MachineFolder) -> None:
    assert renew(folder, addresses=["127.77.0.2"])
    assert renew(folder, addresses=["127.77.0.2"], days=lifetimes.LEAF_DAYS)


def test_a_new_client_comes_to_the_machine(folder: MachineFolder) -> None:
    before = folder.cert.read_bytes()
    certs.regenerate(folder.store / "certs")
    assert not renew(folder)
    assert folder.cert.read_bytes() == (folder.store / "certs" / "cert.pem").read_bytes() != before
    x509.load(folder.cert, folder.key)


def test_a_client_that_is_due_is_renewed(folder: MachineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = folder.store / "certs"
    before = (shared / "cert.pem").read_bytes()
    certs.share_client(shared, folder)
    assert (shared / "cert.pem").read_bytes() == before
    monkeypatch.setattr(certs, "RENEW_DAYS", lifetimes.LEAF_DAYS)
    certs.share_client(shared, folder)
    assert (shared / "cert.pem").read_bytes() != before


def test_nothing_outlives_its_ca_and_is_renewed_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x509, "CA_DAYS", 10)
    folder = new_store(tmp_path)
    assert certs.expiry(folder.server_cert) == certs.expiry(folder.ca)
    assert not renew(folder)


def test_a_damaged_ca_is_named(folder: MachineFolder) -> None:
    (folder.store / "certs" / "ca-key.pem").write_text("nonsense")
    with pytest.raises(MachineError, match=r"ca-key\.pem") as caught:
        certs.share_client(folder.store / "certs", folder)
    assert "regenerate-certs" in caught.value.hint
    certs.regenerate(folder.store / "certs", ca=True)
    certs.share_client(folder.store / "certs", folder)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CA that openssl made: RSA, without key identifiers."""
    folder = tmp_path / "own"
    folder.mkdir()
    words = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=mine -addext keyUsage=critical,keyCertSign"
    openssl(*words.split(), "-keyout", folder / "k", "-out", folder / "c")
    monkeypatch.setenv("MACHINE_TLS_CA_CERT", str(folder / "c"))
    monkeypatch.setenv("MACHINE_TLS_CA_KEY", str(folder / "k"))
    return folder


def test_the_users_own_ca_signs(own: Path, tmp_path: Path) -> None:
    folder = new_store(tmp_path / "store")
    assert folder.ca.read_bytes() == (own / "c").read_bytes()
    assert openssl("verify", "-CAfile", own / "c", folder.server_cert, folder.cert).returncode == 0


def test_the_users_own_ca_never_replaces_the_stores(folder: MachineFolder, own: Path) -> None:
    before = (folder.store / "certs" / "ca.pem").read_bytes()
    with pytest.raises(CheckFailed, match="another certificate"):
        certs.share_client(folder.store / "certs", folder)
    assert (folder.store / "certs" / "ca.pem").read_bytes() == before


def test_half_of_a_pair_is_refused(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACHINE_TLS_CA_KEY")
    with pytest.raises(CheckFailed, match="must be set together"):
        new_store(tmp_path / "store")
    monkeypatch.setenv("MACHINE_TLS_CA_KEY", str(tmp_path / "absent"))
    with pytest.raises(CheckFailed, match="absent"):
        new_store(tmp_path / "other")


def test_the_users_own_client_is_used_as_it_is(
    original: MachineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINE_TLS_CLIENT_CERT", str(original.cert))
    monkeypatch.setenv("MACHINE_TLS_CLIENT_KEY", str(original.key))
    folder = new_store(tmp_path)
    assert folder.cert.read_bytes() == original.cert.read_bytes()
    assert folder.ca.read_bytes() != original.ca.read_bytes()


@contextlib.contextmanager
def server(folder: MachineFolder) -> Iterator[int]:
    """A server that says "hello" to clients of the home's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.server_cert, folder.server_key)
    context.load_verify_locations(folder.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


def hello(port: int, ca: Path, client: MachineFolder | None) -> bytes:
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client:
        context.load_cert_chain(client.cert, client.key)
    with (
        socket.create_connection(("127.0.0.1", port), 60) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as tls,
    ):
        return tls.recv(5)


def test_handshake_both_ways(original: MachineFolder) -> None:
    with server(original) as port:
        assert hello(port, original.ca, original) == b"hello"


def test_no_client_certificate_is_refused(original: MachineFolder) -> None:
    with server(original) as port, pytest.raises(ssl.SSLError, match="certificate required"):
        hello(port, original.ca, None)


def test_another_stores_client_is_refused(original: MachineFolder, folder: MachineFolder) -> None:
    with server(original) as port, pytest.raises(ssl.SSLError, match="unknown ca"):
        hello(port, original.ca, folder)


def test_another_stores_server_is_refused(original: MachineFolder, folder: MachineFolder) -> None:
    with server(original) as port, pytest.raises(ssl.SSLCertVerificationError):
        hello(port, folder.ca, folder)
