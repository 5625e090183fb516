"""One machine that all tests of this folder share, and what they need beside it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Unpack

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import testbed
from tests.testbed import BEGAN, Done, Options, Store, commands, environment, execute, free_port, until
from tests.testbed.places import PLACES
from tests.vm.full import FULL

# What is broken early shows early.
FIRST = ("test_failed_creates",)
# On the machine that all of these share, which is stopped by the last ones only: so it boots as seldom as can be.
SHARED = (
    "test_guest",
    "test_folders",
    "test_watchers",
    "test_shared_files",
    "test_docker",
    "test_host_names",
    "test_ports",
    "test_registry",
    "test_other_clients",
    "test_access",
    "test_verbs",
    "test_two_machines",
    "test_life",
    "test_export",
)
USER, PASSWORD = "tester", "correct horse"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not FULL:
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
    # Side by side the longest begins first; one after the other, the shared machine waits for nobody.
    order = [*FIRST, *SHARED, None] if _beside_others(config) else [*FIRST, None, *SHARED]

    def rank(item: pytest.Item) -> int:
        return order.index(item.path.stem) if item.path.stem in order else order.index(None)

    # Other folders' tests keep their places.
    ours = [number for number, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    for number, item in zip(ours, sorted([items[number] for number in ours], key=rank), strict=True):
        items[number] = item


def _beside_others(config: pytest.Config) -> bool:
    """Whether this process is one of several that share the tests (pytest -n)."""
    return hasattr(config, "workerinput")


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each process a group of tests at a time, the first one of all first."""

    def _split_scope(self, nodeid: str) -> str:
        """What can't run in two processes at once: tests on one machine, or of a hypervisor that the host has once.

        Those of tests/windows have one Wine.
        """
        path = Path(nodeid.partition("::")[0])
        stem = path.stem
        if path.parent.name == "windows":
            return "windows"
        if stem in SHARED:
            return "shared"
        place = next((name for name in PLACES if f"[{name}" in nodeid), "")
        family = f"{stem}-{place}"
        return next((name for name in ("libvirt", "virtualbox") if name in family), family)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    # Its own groups, by marks, have no effect with pytest 9.
    return Groups(config, log)


@pytest.fixture(scope="session", autouse=True)
def _steps(request: pytest.FixtureRequest) -> Iterator[None]:
    """Steps are printed at once, with the time since the beginning: who watches sees where it is."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            # Beside others, the standard output leads nowhere.
            stream = sys.stderr if worker else sys.stdout
            print(f"\n[{worker} {time.monotonic() - BEGAN:6.1f} s] {text}", end="", flush=True, file=stream)

    commands.voice = say
    yield
    commands.voice = print


@pytest.fixture(scope="session")
def images(_steps: None) -> Path:
    """The cache of images, with machineos in it."""
    folder = Path(os.environ.get("MACHINE_IMAGES_PATH") or Path.home() / ".machine/images").absolute()
    if not (folder / "machineos").exists():
        testbed.say(f"no machineos in {folder}: building it, from packages of this host's Debian mirror")
        with contextlib.closing(Store(folder)) as store:
            store.machine("iso", "build", "--if-missing", timeout=7200)
    return folder


@pytest.fixture
def store(images: Path) -> Iterator[Store]:
    """A store for one test; what the test leaves in it is a failure."""
    store = Store(images)
    yield store
    store.close()


@dataclass(frozen=True)
class Vm:
    """A machine of a store, and the docker client that is set to it."""

    store: Store
    name: str
    address: str
    env: dict[str, str]

    def machine(self, verb: str, *words: str | Path, **options: Unpack[Options]) -> Done:
        return self.store.machine(verb, self.name, *words, **options)

    def warnings(self) -> list[str]:
        """What `status` says is amiss."""
        return list(json.loads(self.machine("status", "--json").out)["warnings"])

    def ssh(self, *words: str, **options: Unpack[Options]) -> Done:
        return self.machine("ssh", *words, **options)

    def docker(self, *words: str | Path, **options: Unpack[Options]) -> Done:
        options.setdefault("env", self.env)
        return execute(["docker", *words], **options)

    def curl(self, port: int, path: str = "/") -> str | None:
        """What an HTTP server on the machine's address answers, None when nothing does."""
        url = f"http://{self.address}:{port}{path}"
        done = execute(["curl", "-sS", "-f", "-m", "10", url], env=environment(), code=None)
        return done.out if done.code == 0 else None


@pytest.fixture(scope="session")
def registry_port() -> int:
    """Chosen before the machine is made: its daemon must know of it."""
    return free_port()


@pytest.fixture(scope="session")
def host_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the shared machine has at the same path; its name, too, each program must take."""
    folder = tmp_path_factory.mktemp("shared") / "a b,ü"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def shared(images: Path, registry_port: int, host_folder: Path) -> Iterator[Vm]:
    store = Store(images)
    registry = f"10.0.2.2:{registry_port}"
    try:
        store.create(
            "default",
            *("--memory", "1G", "--cpus", "2", "--disk", "8G", "--timeout", "500", "--tls-san", "docker.test"),
            *("--engine-insecure-registry", registry, "--engine-registry-mirror", f"http://{registry}"),
            *("--engine-label", "stage=test", "--engine-opt", "experimental=true"),
            *("--host", "registry.test=10.0.2.2", "--sysctl", "vm.swappiness=35"),
            *("--mount", str(host_folder), "--mount", f"{host_folder}:/host/read only:ro"),
            *("--engine-env", "HTTP_PROXY=http://proxy.invalid:3128", "--engine-env", "NO_PROXY=10.0.2.2"),
        )
        yield vm_of(store, "default")
        testbed.say("removing the shared machine")
    finally:
        store.close()


def vm_of(store: Store, name: str) -> Vm:
    return Vm(store, name, store.note(name), store.docker_env(name))


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with nothing but busybox in it."""
    root = tmp_path_factory.mktemp("busybox")
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "var", "root"):
        (root / folder).mkdir()
    binary = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists()), None)
    assert binary, "busybox-static isn't installed"
    shutil.copy(binary, root / "bin/busybox")
    for applet in subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    # So that a program of the guest runs in a container that has the guest's /usr.
    for folder in ("lib", "lib64"):
        (root / folder).symlink_to(f"usr/{folder}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def import_busybox(vm: Vm, root: Path) -> None:
    archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
    vm.docker("import", "--change", 'CMD ["sh"]', "-", "busybox", input=archive)


@pytest.fixture(scope="session")
def vm(shared: Vm, busybox_root: Path) -> Vm:
    """What most tests want: the shared machine with the image busybox in its Docker."""
    import_busybox(shared, busybox_root)
    return shared


class Docker(Protocol):
    """Run the docker client on the shared machine."""

    def __call__(self, *words: str | Path, **options: Unpack[Options]) -> Done: ...


@pytest.fixture
def docker(vm: Vm) -> Docker:
    return vm.docker


@pytest.fixture
def name(vm: Vm, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a container, which is removed afterwards."""
    name = request.node.name.replace("[", "-").rstrip("]").removeprefix("test_")
    yield name
    vm.docker("rm", "--force", "--volumes", name, code=None)


@pytest.fixture(scope="session")
def registry(registry_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on this host's loopback, with a password; its name as the guest calls it."""
    folder = tmp_path_factory.mktemp("registry")
    # bcrypt at its cheapest: the registry computes it anew for each request.
    users = execute(["htpasswd", "-Bbn", "-C", "4", USER, PASSWORD], env=environment())
    (folder / "htpasswd").write_text(users.out)
    (folder / "config.yml").write_text(
        f"""\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{registry_port}"}}
auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}
"""
    )
    log = (folder / "log").open("wb")
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
        try:
            until(lambda: ("127.0.0.1", registry_port) in testbed.listening(), "the registry", timeout=30)
            yield f"10.0.2.2:{registry_port}"
        finally:
            process.terminate()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the guests of a failed test wrote on their consoles belongs to its report."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {}).values()
        stores = {id(store): store for store in (getattr(value, "store", value) for value in used)}
        for console in (file for store in stores.values() if isinstance(store, Store) for file in store.consoles()):
            text = console.read_text(errors="replace")
            report.sections.append((f"{console.parent.name}: {console.name}", "\n".join(text.splitlines()[-40:])))
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.parent == Path(__file__).parent and platform.system() != "Linux":
        pytest.skip("these tests need Linux: network namespaces, /proc, Debian's tools")
