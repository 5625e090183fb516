"""The direction of imports: cli -> create, lifecycle -> leaves; drivers -> the contract and a few leaves."""

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"machine": "machine", "drivers": "machine.drivers", "isos": "machine.isos", "templates": "machine.templates"}

FOR_DRIVERS = {
    "acceleration",
    "copies",
    "docker.api",
    "docker.daemon_json",
    "docker.forwarding",
    "docker.ports",
    "docker.refusal",
    "driver",
    "errors",
    "files",
    "filesystem",
    "folders.mount_spec",
    "folders.handles",
    "folders.installation",
    "folders.over_ssh",
    "guest.credentials",
    "guest.seed",
    "helper",
    "images.disks",
    "links",
    "locks",
    "network.addresses",
    "network.port",
    "network.process",
    "machine",  # its version
    "ownership",
    "packages",
    "paths",
    "reasons",
    "render",
    "resources",
    "run",
    "spec",
    "ssh.remote",
    "store",
    "tls.authorities",
    "usernet",
    "wait",
}
# Who may start processes. The rest calls machine.run, which cleans the environment and explains what is missing.
STARTS_PROCESSES = {"machine.run"}


def sources() -> dict[str, Path]:
    """Every module of the project, by the name under which it is installed."""
    found = {}
    for folder, name in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([name, *(part for part in parts if part != "__init__")])] = path
    return found


SOURCES = sources()


@functools.cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))))


@functools.cache
def imported(module: str) -> frozenset[str]:
    """The modules that a module names in its imports, those inside of functions and for type checkers included."""
    return frozenset(_imported(module))


def _imported(module: str) -> Iterator[str]:
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            source = ".".join(filter(None, [base, node.module or ""]))
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in SOURCES else source


def ours(module: str) -> set[str]:
    return {name for name in imported(module) if name in SOURCES}


def modules(prefix: str) -> list[str]:
    return [module for module in SOURCES if module == prefix or module.startswith(f"{prefix}.")]


def family(module: str) -> str:
    """The driver that a module is part of, "machine.drivers.qemu"."""
    return ".".join(module.split(".")[:3])


DRIVERS = modules("machine.drivers")
CORE = [module for module in SOURCES if not module.startswith(("machine.drivers", "machine.isos", "machine.templates"))]


def test_all_is_seen() -> None:
    assert {"machine", "machine.cli", "machine.create", "machine.drivers.qemu.driver", "machine.isos"} <= SOURCES.keys()
    assert "machine.drivers.qemu.argv" in ours("machine.drivers.qemu.driver")
    assert "machine.errors" in ours("machine.drivers.qemu.driver")
    assert "machine.lifecycle" in ours("machine.create")


@pytest.mark.parametrize("module", SOURCES)
def test_mapped_folders_are_imported_by_their_installed_names(module: str) -> None:
    assert {name.partition(".")[0] for name in imported(module)}.isdisjoint({"drivers", "isos", "templates", "tests"})


@pytest.mark.parametrize("module", DRIVERS)
def test_a_driver_knows_the_contract_and_its_siblings(module: str) -> None:
    for name in ours(module):
        sibling = family(name) == family(module)
        assert sibling or name.removeprefix("machine.") in FOR_DRIVERS, f"{module} imports {name}"


@pytest.mark.parametrize("module", DRIVERS)
def test_siblings_are_imported_relatively(module: str) -> None:
    for node in nodes(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert not [name for name in names if name.startswith("machine.drivers")]


@pytest.mark.parametrize("module", CORE)
def test_the_core_names_no_driver(module: str) -> None:
    assert not [name for name in imported(module) if name.startswith("machine.drivers")]
    text = [node.value for node in nodes(module) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [value for value in text if value.startswith("machine.drivers.")]


@pytest.mark.parametrize("module", SOURCES)
def test_one_module_starts_processes(module: str) -> None:
    starters = {"subprocess", "multiprocessing", "pty"}
    assert module in STARTS_PROCESSES or starters.isdisjoint(name.partition(".")[0] for name in imported(module))


def importers(target: str) -> set[str]:
    return {module for module in SOURCES if any(name in modules(target) for name in imported(module))}


def test_the_command_line_is_imported_by_nothing_below_it() -> None:
    assert {name for name in importers("machine.cli") if not name.startswith("machine.cli")} == {"machine.__main__"}


def test_only_the_command_line_creates() -> None:
    able = ("machine.cli.", "machine.cluster.")
    assert all(name.startswith(able) for name in importers("machine.create"))


def test_the_life_of_a_machine_is_known_to_the_command_line_and_create() -> None:
    above = {"machine.create", "machine.resize", "machine.capabilities", "machine.upgrade", "machine.cluster.life"}
    assert all(name in above or name.startswith("machine.cli") for name in importers("machine.lifecycle"))


def _loads_driver(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "registry.load"


def made_drivers(nodes: list[ast.AST]) -> list[str]:
    """Where a class that the registry gave is called, at once or by the name that it was given."""
    assigned = [node for node in nodes if isinstance(node, ast.Assign) and _loads_driver(node.value)]
    classes = {ast.unparse(target) for node in assigned for target in node.targets}
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if _loads_driver(call.func) or ast.unparse(call.func) in classes]


def test_where_a_driver_is_made_is_seen() -> None:
    source = "kind = registry.load(name)\nkind(machine, home)\nregistry.load(name)(1)\nregistry.load(name).orphans(2)"
    assert made_drivers(list(ast.walk(ast.parse(source)))) == ["kind(machine, home)", "registry.load(name)(1)"]


def test_one_module_makes_drivers() -> None:
    assert [module for module in CORE if made_drivers(nodes(module))] == ["machine.instance"]


def test_no_modules_import_each_other_in_a_circle() -> None:
    """An import counts wherever it stands: in a function, or for type checkers, it binds two modules all the same."""
    try:
        graphlib.TopologicalSorter({module: ours(module) - {module} for module in SOURCES}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"each is imported by the next: {', '.join(error.args[1])}")
