"""docs/machine-file.md: what machine.yaml may hold, key by key from its schema, and what `machine plan` says of each
example.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from machine.cli import project_plan
from machine.project import load, schema
from machine.project.planning import planned

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
_PAGE = """\
# machine.yaml: one file for a project's machines

A team checks this file in, and whoever clones the project types `machine up`.

    machine init                          # write a file with one machine, which comments explain
    machine plan                          # print what up would do, and what that means for this computer
    machine up                            # make, change and start the machines
    eval "$(machine env --project)"       # point docker at it, where the project has one machine
    machine down                          # shut them down; with --rm, remove them

The file is `machine.yaml` in this folder or the nearest above, or what `--file` names. Relative paths in it count
from its folder. Its mistakes are told all at once, with line and column. Editors that know the YAML language server
complete and check its keys by `machine.schema.json`, which `init` writes beside it, and `machine schema` prints.

## What up does

- A machine of the file that isn't there is made, as by `machine create`. One that is off is started, a suspended one
  continues. Four machines are worked on at a time, and an error of one doesn't stop the others.
- **Changes.** `memory`, `cpus`, `disk`, `mount`, `host`, `sysctl`, `no-host-network-ports` and the options `engine-…`
  are changed in the machine that is there: at once where its driver can, else at its next start (`up` says which).
  Everything else (`driver`, `image`, …), and a smaller disk, takes a new machine: `up` says so, and does it with
  `--recreate NAME` only.
- What the file doesn't say is as `machine create` has it, and stays as it is afterwards: what `machine set` changed
  isn't undone. What it said before and no longer says goes again.
- A machine that the file has no more is removed with `--prune` only. A machine that was made by hand is never
  touched: if the file wants its name, that is an error. A machine belongs to the project by the path of the file, and
  by the project's name when the file has gone from there: the folder may be moved.
- `plan --check` ends with 0 when there is nothing to do, 2 when there is, 3 when the file is wrong.

## Steps and probes

`provision` lists steps, which run in the machine in their order: `script` (a text, or `{{file: PATH}}`) or `copy`.

| mode | runs | as |
|---|---|---|
| `once` | once in the machine's life, and again when the step or its files change | root |
| `boot` | at each boot by `up`, `start`, `restart`; not after a reboot from inside, nor when the host boots it | root |
| `user` | as `once` | the machine's user |

A step that fails names itself and shows its last lines; the next `up` or `start` goes on there. `machine logs
--provision NAME` prints what all steps printed. `$MACHINE_NAME` is the machine's name. **In machineos only `/home`,
`/root` and Docker's data last** ([what lasts](settings.md#what-lasts-in-a-machine)): what a step puts elsewhere needs
`mode: boot`.

`probes` are commands that must succeed before `up` ends, after the steps. They are asked again after each boot.

## Arguments, the environment, and bases

    args:
      size: {{default: 2G, enum: [2G, 4G]}}
    env: [USER]
    machines:
      dev:
        memory: ${{{{ args.size }}}}          # machine up --arg size=4G
        engine-label: ["owner=${{{{ env.USER }}}}"]

Nothing else is filled in: a variable of this computer's environment only if `env` lists it, and `plan` shows that
list. `$${{{{` stands for `${{{{` itself.

`base` names another file, or a URL that ends with `#sha256=` and its digest, which is fetched once. Mappings merge,
lists append, scalars replace; the same way `defaults` and a machine's own keys. In a base, too, paths count from the
folder of machine.yaml itself.

## Keys of the file

{top}
## Keys of a machine

The same under `defaults`. {options}

{own}
### Options of create

{common}
{drivers}
## Steps of `provision`

{step}
## Items of `probes`

{probe}
## Examples

Each lies in [examples](../examples), with a README. This is what `machine plan` prints where there is no machine yet.

{examples}"""


def page(found: dict[str, Any]) -> str:
    """found: the schema."""
    machine = found["$defs"]["machine"]["properties"]
    options = {key: about for key, about in machine.items() if "x-option" in about}
    drivers = sorted({about["x-driver"] for about in options.values() if "x-driver" in about})
    return _PAGE.format(
        top=_table(found["properties"]),
        options="Its options are those of `machine create`, under the same names.",
        own=_table({key: about for key, about in machine.items() if key not in options}),
        common=_table({key: about for key, about in options.items() if "x-driver" not in about}),
        drivers="\n".join(
            f"### Options of the driver {driver}\n\n"
            + _table({key: about for key, about in options.items() if about.get("x-driver") == driver})
            for driver in drivers
        ),
        step=_table(machine["provision"]["items"]["properties"])
        + "\nKeys of `copy`:\n\n"
        + _table(machine["provision"]["items"]["properties"]["copy"]["properties"]),
        probe=_table(machine["probes"]["items"]["properties"]),
        examples="\n".join(_example(file, found) for file in sorted(EXAMPLES.glob("*/machine.yaml"))),
    )


def _table(properties: dict[str, Any]) -> str:
    rows = ["| key | type | default | example | |", "|---|---|---|---|---|"]
    for key, about in properties.items():
        example = f"`{_shown(about['examples'][0])}`" if "examples" in about else _made_up(about)
        text = about["description"].replace("|", "\\|")
        rows.append(f"| `{key}` | {_type(about)} | {about.get('x-default', '')} | {example} | {text} |")
    return "\n".join(rows) + "\n"


def _made_up(about: dict[str, Any]) -> str:
    if _type(about) == "true or false":
        return "`true`"
    if about.get("enum"):
        return f"`{about['enum'][1]}`"
    metavar = about.get("x-metavar", "")
    return f"`{metavar}`" if metavar else ""


def _shown(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).strip()
    return text.removesuffix("...").strip()


def _type(about: dict[str, Any]) -> str:
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    kinds = about.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "pattern" in about and about["pattern"] == schema.SIZE:
        return "size"
    words = {"string": "text", "integer": "number", "array": "list", "object": "mapping", "boolean": "true or false"}
    named = [words[kind] for kind in kinds if kind in words]
    return "text" if named[:2] == ["text", "number"] else " or ".join(named)


def _example(file: Path, found: dict[str, Any]) -> str:
    title = file.with_name("README.md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    text = "".join(f"    {line}".rstrip() + "\n" for line in _planned(file, found))
    return f"### {title}\n\n[examples/{file.parent.name}](../examples/{file.parent.name})\n\n{text}"


def _planned(file: Path, allowed: dict[str, Any]) -> Iterator[str]:
    """What `machine plan` prints there for a user `ann` who has cloned the project, whatever this computer is."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, _environment(home), clear=True):
        os.chdir(file.parent)
        try:
            found = planned(load.load(file, allowed, {}, {"USER": "ann"}))
            lines = project_plan.lines(found)
        finally:
            os.chdir(here)
    for line in lines:
        line = line.replace(str(ROOT), "/home/ann/project").replace(home, "~")
        yield re.sub(r"not there: [^\n]*", "fetched, or must be built", line)


def _environment(home: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "SYSTEMROOT"}}
    return {**kept, "HOME": home, "MACHINE_STORAGE_PATH": f"{home}/.machine", "MACHINE_DRIVER": "qemu"}
