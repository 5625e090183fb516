""".ci/requirements.lock has a release for everything that the tests need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / ".ci" / "requirements.lock"


def locked() -> dict[str, str]:
    lines = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def asked() -> list[Requirement]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    extras = [item for items in project["optional-dependencies"].values() for item in items]
    return [Requirement(item) for item in [*project["dependencies"], *extras, *settings["dependency-groups"]["dev"]]]


def test_each_package_has_a_release_that_pyproject_allows() -> None:
    versions = locked()
    for requirement in asked():
        if requirement.name.startswith("machine-vm-"):
            continue  # our own, of the same release
        version = versions.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} isn't in .ci/requirements.lock: make lock"
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_it_works_with_any_package_index() -> None:
    """Names and releases only: no address of an index or of a file, no option of pip's."""
    for line in LOCK.read_text(encoding="utf-8").splitlines()[1:]:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line
