"""Write the reference of verbs (docs/reference/verbs.md), a man page per verb (docs/man) and the schema of machine.yaml
and its page (docs/machine-file.md) from the program itself.

`make docs` runs it. With --check it writes nothing, prints what isn't as the program says, and ends with 1;
tests/cli/test_reference.py runs that.
"""

from __future__ import annotations

import sys
from pathlib import Path

from machine import registry
from machine.cli import project_keys
from machine.project import schema

from .machine_file import page
from .markdown import verbs_page
from .pages import DRIVERS, pages
from .roff import man, man_of_machine

DOCS = Path(__file__).parents[1]


def files() -> dict[Path, str]:
    """What is to be in docs/ and in the package: path -> text."""
    found = {"reference/verbs.md": verbs_page(), "man/machine.1": man_of_machine()}
    found |= {f"man/machine-{page.words}.1": man(page) for page in pages()}
    drivers = [name for name in registry.names() if name.partition("-")[0] in DRIVERS]
    allowed = project_keys.built(drivers)
    found["machine-file.md"] = page(allowed)
    return {DOCS / name: text for name, text in found.items()} | {schema.FILE: schema.dumps(allowed)}


def stale() -> dict[Path, str | None]:
    """The files that differ from what the program says: path -> text, None for one that is to go."""
    wanted = files()
    old = [path for path in (DOCS / "man").glob("*.1") if path not in wanted]
    return {path: text for path, text in wanted.items() if _read(path) != text} | dict.fromkeys(old)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    found = stale()
    for path, text in found.items():
        print(path.relative_to(DOCS.parent))
        if "--check" in sys.argv:
            continue
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if found and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
