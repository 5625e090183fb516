"""machineos on a host that doesn't build it: from a server, from a package, and when neither has it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tiny_iso import ABOUT, iso
from web_server import Quiet, serving

from machine import resources
from machine import store as stores
from machine.images import cache, downloads, machineos, release
from machine.images.release import Release
from tests.fixture_types import Invoke

FILE = "machineos-x86_64.iso"


@pytest.fixture(autouse=True)
def here(vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with x86_64 processors, and nothing in its cache."""
    for about in cache.cached():
        cache.remove(about)
    monkeypatch.setattr(resources, "architecture", lambda: "x86_64")
    monkeypatch.setattr(downloads, "PAUSE", 0.0)


@pytest.fixture
def www(tmp_path: Path) -> Path:
    """A publisher's folder: the ISO and its digest."""
    folder = tmp_path / "www"
    folder.mkdir()
    iso(folder / FILE)
    (folder / release.SUMS).write_text(f"{digest(folder)}  {FILE}\n")
    return folder


@pytest.fixture
def url(www: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Handler(Quiet, SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(www))

        def do_GET(self) -> None:
            if self.path.startswith("/moved/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/moved"))
                self.end_headers()
            else:
                super().do_GET()

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def own_server(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(release.URL_VARIABLE, url + "/")
    return url


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / FILE).read_bytes()).hexdigest()


def pin(monkeypatch: pytest.MonkeyPatch, *urls: str, **digests: str) -> None:
    pinned = {f"machineos-{architecture}.iso": value for architecture, value in digests.items()}
    monkeypatch.setattr(release, "published", lambda: Release(urls, pinned))


def test_pull_and_create_fetch_it_once(invoke: Invoke, store: Path, www: Path, own_server: str) -> None:
    ended = invoke("create", "dev")
    assert ended.code == 0, ended
    assert f"fetching machineos from {own_server}" in ended.err
    wanted = digest(www)
    assert stores.load("dev").image == wanted
    (www / FILE).unlink()
    assert invoke("create", "dev2").code == 0
    assert json.loads(invoke("image", "pull", "--json", "machineos").out)["digest"] == wanted


def test_the_server_of_config_toml(invoke: Invoke, store: Path, www: Path, url: str) -> None:
    (store / "config.toml").write_text(f'images-url = "{url}/moved"\n')
    assert json.loads(invoke("image", "pull", "--json", "machineos").out)["digest"] == digest(www)


@pytest.mark.parametrize("value", ["ftp://x/", "machineos"])
def test_a_server_that_is_none(invoke: Invoke, store: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(release.URL_VARIABLE, value)
    ended = invoke("image", "pull", "machineos")
    assert (ended.code, f'invalid URL "{value}"' in ended.err) == (2, True)


def test_without_a_server_the_way_to_get_it_is_told(invoke: Invoke, store: Path) -> None:
    ended = invoke("create", "dev")
    assert (ended.code, "machineos isn't in the cache" in ended.err) == (3, True)
    assert cache.remedy() in ended.err
    assert release.URL_VARIABLE in ended.err


def test_offline(invoke: Invoke, store: Path, own_server: str) -> None:
    ended = invoke("create", "--offline", "dev")
    assert (ended.code, "--offline forbids a download" in ended.err) == (3, True)
    assert "Next: machine image pull machineos" in ended.err


def test_a_server_that_lists_another_file(invoke: Invoke, store: Path, www: Path, own_server: str) -> None:
    (www / release.SUMS).write_text(f"{'0' * 64}  other.iso\nnonsense\n")
    ended = invoke("image", "pull", "machineos")
    assert (ended.code, f"{own_server}/SHA256SUMS lists no {FILE}" in ended.err) == (1, True)


@pytest.mark.parametrize("gone", [FILE, release.SUMS])
def test_a_server_without_it(invoke: Invoke, store: Path, www: Path, own_server: str, gone: str) -> None:
    (www / gone).unlink()
    ended = invoke("image", "pull", "machineos")
    assert (ended.code, f"{own_server}/{gone} can't be downloaded" in ended.err, "404" in ended.err) == (1, True, True)


def test_another_content_than_listed(invoke: Invoke, store: Path, www: Path, own_server: str) -> None:
    (www / FILE).write_bytes((www / FILE).read_bytes() + b"x")
    ended = invoke("image", "pull", "machineos")
    assert (ended.code, "has another digest than expected" in ended.err) == (1, True)
    assert invoke("image", "ls", "-q").out == ""


def test_one_of_another_architecture(invoke: Invoke, store: Path, www: Path, own_server: str) -> None:
    iso(www / FILE, {**ABOUT, "architecture": "aarch64"})
    (www / release.SUMS).write_text(f"{digest(www)} *{FILE}\n")
    ended = invoke("create", "dev")
    assert (ended.code, "is for aarch64 processors, and x86_64 was wanted" in ended.err) == (3, True)


def test_what_the_release_pins_wins_over_what_the_server_says(
    invoke: Invoke, store: Path, www: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, url, x86_64="0" * 64)
    ended = invoke("image", "pull", "machineos")
    assert (ended.code, "has another digest than expected" in ended.err) == (1, True)


def test_the_next_mirror_is_tried(
    invoke: Invoke, store: Path, www: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, f"{url}/absent", url, x86_64=digest(www))
    ended = invoke("create", "dev")
    assert ended.code == 0, ended
    assert f"{url}/absent/{FILE} can't be downloaded" in ended.err


def test_one_of_an_older_version_is_replaced_where_the_new_one_can_be_had(
    invoke: Invoke, store: Path, www: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = machineos.add(iso(tmp_path / "old.iso", {**ABOUT, "version": "0.0"})).digest
    pin(monkeypatch, f"{url}/absent", x86_64=digest(www))
    ended = invoke("create", "dev")
    assert (ended.code, "an older machineos is used" in ended.err) == (0, True), ended
    assert stores.load("dev").image == old
    pin(monkeypatch, url, x86_64=digest(www))
    assert invoke("create", "new").code == 0
    assert stores.load("new").image == digest(www)


def test_one_that_was_built_by_this_versions_recipe_wins(
    invoke: Invoke, store: Path, www: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from machine.isos.machineos import recipe

    built = machineos.add(iso(tmp_path / "built.iso", {**ABOUT, "recipe": recipe.digest()})).digest
    pin(monkeypatch, url, x86_64=digest(www))
    assert invoke("create", "dev").code == 0
    assert stores.load("dev").image == built


@pytest.fixture
def package(www: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that holds the ISO."""
    site = tmp_path / "site"
    about = site / "image_of_machineos-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: image-of-machineos\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[{release.GROUP}]\nx86_64 = image_of_machineos:path\n")
    (site / "image_of_machineos.py").write_text(f"def path():\n    return {str(www / FILE)!r}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "image_of_machineos", raising=False)
    return site


def test_a_package_that_holds_it(invoke: Invoke, store: Path, www: Path, package: Path) -> None:
    assert invoke("create", "--offline", "dev").code == 0
    assert stores.load("dev").image == digest(www)


def test_a_package_of_another_version_is_none(
    invoke: Invoke, store: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, x86_64="0" * 64)
    ended = invoke("create", "--offline", "dev")
    assert (ended.code, "machineos isn't in the cache" in ended.err) == (3, True)


def test_a_package_that_is_broken(invoke: Invoke, store: Path, package: Path) -> None:
    (package / "image_of_machineos.py").write_text("raise RuntimeError('half of it')\n")
    ended = invoke("create", "dev")
    assert (ended.code, "the package of machineos can't be used: half of it" in ended.err) == (3, True)


def test_what_make_release_makes(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wheels, unpacked as pip would: one pins the digest that the other holds."""
    dist, site = tmp_path / "dist", tmp_path / "site"
    made = iso(tmp_path / FILE)
    script = Path(__file__).parent.parent.parent / "packaging/release.py"
    words = (script, "--iso", made, "--url", "https://images.example.org", "--output", dist)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=200)
    wanted = digest(tmp_path)
    again = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, timeout=200)
    assert (again.returncode, "has something in it already" in again.stderr) == (2, True)
    check_manifests(dist)
    assert (dist / release.SUMS).read_text() == f"{wanted}  {FILE}\n"
    for wheel in dist.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    pins = json.loads((site / "machine/isos/release.json").read_text())
    assert pins == {"urls": ["https://images.example.org"], "sha256": {FILE: wanted}}
    shutil.rmtree(site / "machine")  # this process has its own
    monkeypatch.syspath_prepend(site)
    assert invoke("create", "--offline", "dev").code == 0
    assert stores.load("dev").image == wanted


def check_manifests(dist: Path) -> None:
    """What Homebrew and Scoop install: the program's wheel, from the release's folder, by its digest."""
    [wheel] = dist.glob("machine_vm-*.whl")
    version = wheel.name.split("-")[1]
    url = f"https://images.example.org/{wheel.name}"
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    scoop = json.loads((dist / "machine.json").read_text(encoding="utf-8"))
    assert (scoop["version"], scoop["url"], scoop["hash"]) == (version, url, sha256)
    assert {"homepage", "license", "bin", "installer"} <= scoop.keys()
    formula = (dist / "machine.rb").read_text(encoding="utf-8")
    for line in (f'url "{url}", using: :nounzip', f'version "{version}"', f'sha256 "{sha256}"'):
        assert f"  {line}\n" in formula
    # Ruby isn't everywhere: each block is closed, and nothing of the template is left.
    words = [line.split()[0] for line in formula.splitlines() if line.strip()]
    assert words.count("end") == sum(words.count(word) for word in ("class", "def", "test"))
    assert "{{" not in formula
