"""What this computer runs as this program. A guest that could write there would run programs on this computer."""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
from pathlib import Path

# Interpreters of the system. What else lies there is no part of them.
_SYSTEM = frozenset(map(Path, ("/", "/usr", "/usr/local")))
_LIBRARIES = frozenset({"stdlib", "platstdlib", "purelib", "platlib"})
_PACKAGES = ("machine", "machine.drivers")
_SERVER = "machine.folders"
# With these Python looks for modules elsewhere, and may find ours only there.
_VARIABLES = ("PYTHONPATH", "PYTHONHOME")


def folders() -> list[Path]:
    """The interpreter, its virtual environment, the libraries and our code, as far as the user may write them."""
    prefixes = {Path(sys.prefix), Path(sys.base_prefix)} - _SYSTEM
    libraries = {Path(path) for name, path in sysconfig.get_paths().items() if name in _LIBRARIES}
    found = {path.resolve() for path in (*prefixes, *libraries, *_code(), Path(sys.executable).resolve().parent)}
    return sorted(path for path in found if path.is_dir() and os.access(path, os.W_OK))


def python() -> list[str]:
    """The command that runs our modules, and none of a folder that a guest may write.

    -I leaves out ~/.local/lib/pythonX.Y, where a file could be put that each Python runs when it starts.
    """
    elsewhere = _is_users() or any(os.environ.get(variable) for variable in _VARIABLES)
    return [sys.executable, "-P" if elsewhere else "-I"]


def server(machine_folder: Path, *words: str) -> list[str]:
    """The command that serves a machine's folders on its standard input."""
    return [*python(), "-m", _SERVER, str(machine_folder), *words]


def _code() -> list[Path]:
    """The folders of our packages; where they lie among others, the folder of all, because we import those, too."""
    found = []
    for name in _PACKAGES:
        if (spec := importlib.util.find_spec(name)) and spec.submodule_search_locations:
            package = Path(next(iter(spec.submodule_search_locations)))
            among_others = package.parent.name in {"site-packages", "dist-packages"}
            found.append(package.parent if among_others else package)
    return found


def _is_users() -> bool:
    """Whether we are installed by `pip install --user`."""
    return any(folder.resolve() == Path(site.getusersitepackages()).resolve() for folder in _code())
