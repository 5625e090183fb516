"""Variables that change whom other programs trust, with real clients and a real TLS server."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker as docker_py
import pytest
from docker.errors import DockerException

from machine.docker.api import Client
from machine.paths import MachineFolder
from machine.spec import Address
from machine.tls import trust
from tests.unit.docker.test_api import TLS, context_of, new_store, serving

ALL = (*trust.VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [*ALL, *(name for name in os.environ if name.lower().endswith("_proxy"))]:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MachineFolder:
    return new_store(tmp_path_factory.mktemp("store"), "127.0.0.1")


@pytest.fixture(scope="module")
def address(folder: MachineFolder) -> Iterator[Address]:
    with serving(context_of(folder)) as (found, _):
        yield found


@pytest.fixture
def company(tmp_path: Path) -> Path:
    """The authorities of a company, as they stand in such a variable: ours isn't among them."""
    other = new_store(tmp_path / "other")
    return other.ca


def ask(folder: MachineFolder, address: Address) -> object:
    """By docker-py, which most of Python uses, set up as `machine env` does it."""
    environment = {"DOCKER_HOST": address.url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder.path)}
    client = docker_py.from_env(version="1.51", environment=environment, timeout=60)
    try:
        return client.version()["Version"]
    finally:
        client.close()


@pytest.mark.parametrize("variable", ALL)
def test_which_variables_break_python(
    folder: MachineFolder, address: Address, company: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(folder, address) == "28.5.1"
    monkeypatch.setenv(variable, str(company.parent if variable.endswith("_DIR") else company))
    if variable in trust.VARIABLES:
        with pytest.raises((DockerException, OSError), match="CERTIFICATE_VERIFY_FAILED"):
            ask(folder, address)
    else:
        assert ask(folder, address) == "28.5.1"


@pytest.mark.parametrize("variable", trust.VARIABLES)
def test_our_authority_beside_the_others_mends_it(
    folder: MachineFolder, address: Address, company: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = company.with_name("both.pem")
    both.write_text(company.read_text(encoding="utf-8") + folder.ca.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv(variable, str(both))
    assert ask(folder, address) == "28.5.1"
    assert list(trust.findings(folder.ca)) == []


@pytest.mark.parametrize("variable", ALL)
def test_ourselves_and_docker_they_dont_touch(
    folder: MachineFolder, address: Address, company: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(company.parent if variable.endswith("_DIR") else company))
    assert Client(TLS, folder, address, timeout=60).version() == "28.5.1"
    if not shutil.which("docker"):
        pytest.skip("needs the docker client")
    files = {"tlscacert": folder.ca, "tlscert": folder.cert, "tlskey": folder.key}
    options = [f"--{key}={path}" for key, path in files.items()]
    done = subprocess.run(
        ["docker", "--tlsverify", *options, f"-H={address.url}", "version", "--format", "{{.Server.Version}}"],
        env={**os.environ, "DOCKER_API_VERSION": "1.51"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "x509" not in done.stderr
    assert "28.5.1" in done.stdout, done.stderr


def test_findings(folder: MachineFolder, company: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(trust.findings(folder.ca)) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(company))
    (finding,) = trust.findings(folder.ca)
    assert "REQUESTS_CA_BUNDLE" in finding.text
    assert "docker-py" in finding.text
    merge = finding.hint.removeprefix("unset REQUESTS_CA_BUNDLE, or: ")
    script = f"{merge} && printenv REQUESTS_CA_BUNDLE"
    done = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", done.stdout.strip())
    assert list(trust.findings(folder.ca)) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/at/all")
    assert len(list(trust.findings(folder.ca))) == 1
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    assert len(list(trust.findings(folder.ca))) == 1, "an empty one counts as none"
