import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from fake_fixtures import ended, host_of

from machine import paths, registry, resources, store
from machine.cli import driver_options
from machine.driver import State
from machine.images import cache, downloads, machineos
from machine.spec import Machine
from tests.fixture_types import Begin, Invoke, Outcome


def await_(probe: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def nothing_is_left(vms: Path) -> bool:
    """No machine, no folder of one, no virtual machine; locks and the cache of images stay."""
    there = [path for path in store.folder().glob("*") if path.name != ".lock"]
    return there == [] and list(vms.iterdir()) == []


def made(name: str = "default") -> Machine:
    return store.load(name)


def test_a_machine_is_made_and_the_last_line_tells_how_to_connect(invoke: Invoke, vms: Path) -> None:
    shown = invoke("create", "dev")
    assert shown.code == 0
    assert shown.out == 'dev is ready. To point the docker client at it, run: eval "$(machine env dev)"\n'
    phases = [line.partition("] ")[2] for line in shown.err.splitlines() if "note:" not in line]
    assert phases == [
        "dev: making the virtual machine",
        "dev: preparing its keys and seed",
        "dev: starting the virtual machine",
        f"dev: waiting for Docker to answer on tcp://{host_of(made('dev'))}:2375",
        "dev: waiting for an SSH login",
    ]
    assert (vms / "dev").read_text() == State.RUNNING


def test_the_name_is_default_when_it_is_left_out(invoke: Invoke, vms: Path) -> None:
    assert invoke("create").code == 0
    assert store.names() == ["default"]


def test_quiet_prints_nothing(invoke: Invoke, vms: Path) -> None:
    assert invoke("create", "--quiet", "dev") == Outcome(0, "", "")


def test_json_prints_the_machine(invoke: Invoke, vms: Path) -> None:
    shown = invoke("create", "--json", "a", "b")
    assert (shown.code, shown.err) == (0, "")
    assert [machine["name"] for machine in json.loads(shown.out)] == ["a", "b"]
    assert json.loads(shown.out)[0]["address"]["docker_port"] == 2375


def test_every_option_reaches_the_machine(invoke: Invoke, vms: Path) -> None:
    shown = invoke(
        *("create", "--driver", "fake", "--memory", "1.5G", "--cpus", "1", "--disk", "1024"),
        *("--engine-opt", "log-driver=local", "--engine-opt", "debug=true", "--engine-label", "stage=test"),
        *("--engine-env", "A=b", "--engine-registry-mirror", "http://a", "--engine-insecure-registry", "b:5000"),
        *("--tls-san", "dev.test", "--tls-san", "10.0.0.1", "--fake-bold", "--fake-words", "x", "--fake-words", "y"),
        *("--fake-slow", "0", "dev"),
    )
    assert shown.code == 0, shown.err
    machine = made("dev")
    assert (machine.driver, machine.memory_mib, machine.cpus, machine.disk_mib) == ("fake", 1536, 1, 1024)
    assert machine.engine.options == ("log-driver=local", "debug=true")
    assert (machine.engine.labels, machine.engine.environment) == (("stage=test",), ("A=b",))
    assert (machine.engine.registry_mirrors, machine.engine.insecure_registries) == (("http://a",), ("b:5000",))
    assert (machine.tls, machine.tls_sans) == (True, ("dev.test", "10.0.0.1"))
    assert machine.options == {"bold": True, "word": ("x", "y"), "slow": 0}
    assert machine.image == cache.current("machineos").digest


def test_plain_http_is_asked_for(invoke: Invoke, vms: Path) -> None:
    assert invoke("create", "--no-tls", "dev").code == 0
    assert not made("dev").tls
    assert made("dev").options == {}


class Shown(Protocol):
    """The help of create on a host that has QEMU and the fake, with one blank between all words."""

    def __call__(self, *words: str) -> str: ...


@pytest.fixture
def shown(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    for name in registry.names():
        monkeypatch.setattr(registry.load(name), "is_available", lambda name=name: name in {"qemu", "fake", "none"})

    def print_help(*words: str) -> str:
        printed = invoke("create", *words)
        assert (printed.code, printed.err) == (0, "")
        return " ".join(printed.out.split())

    return print_help


def test_help_has_the_options_of_drivers_that_can_work_here(shown: Shown) -> None:
    for text in (shown("--help"), shown("-h")):
        for option in (
            "Driver fake: --fake-slow NUMBER Seconds that create takes.",
            "--fake-fails VALUE The step that fails. [env: FAKE_FAILS]",
            "--fake-bold A switch.",
            "Driver qemu, the default here: --qemu-accelerator NAME",
            "[default: auto] [env: QEMU_ACCELERATOR]",
        ):
            assert option in text
        assert (
            text.index("--memory SIZE") < text.index("--engine-opt") < text.index("--cold") < text.index("--fake-slow")
        )
        assert not re.search(r"--(virtualbox|libvirt)-", text)
        assert text.endswith(
            "Drivers that lack something on this host (generic, libvirt, lxc, virtualbox): "
            "machine create --driver NAME --help Show the options of one. "
            "machine create --help-all Show the options of all drivers."
        )


def test_help_of_one_driver_and_of_all(shown: Shown, invoke: Invoke) -> None:
    for words in (("--driver", "virtualbox", "--help"), ("--help", "-d", "virtualbox"), ("-dvirtualbox", "-h")):
        text = shown(*words)
        assert "Driver virtualbox: --virtualbox-memory MIB" in text
        assert not re.search(r"--(fake|qemu|libvirt)-", text)
        assert "--memory SIZE" in text
    text = shown("--help-all")
    assert all(f"--{name}-" in text for name in ("fake", "qemu", "libvirt", "generic", "none", "virtualbox"))
    assert "lack something" not in text
    assert 'there is no driver "x"' in invoke("create", "--driver", "x", "--help").err


def test_help_while_the_defaults_are_wrong(shown: Shown, store: Path) -> None:
    (store / "config.toml").write_text("nonsense")
    assert "--virtualbox-memory" in shown("--help-all")


@pytest.mark.parametrize(
    "name",
    ["../x", "", ".", "..", "-x", "a/b", "a b", "x" * 300, "x" * 64, "ä", "a\nb", "a_b", "~", ".trash-x"],
)
def test_a_bad_name_is_a_usage_error_and_touches_nothing(invoke: Invoke, vms: Path, name: str) -> None:
    shown = invoke("create", "--", name)
    assert (shown.code, shown.out) == (2, "")
    assert re.search("^(Next|Hint): ", shown.err, re.MULTILINE)
    assert "Traceback" not in shown.err
    assert nothing_is_left(vms)
    assert not (vms.parent / "x").exists()


def test_a_leading_dash_is_an_option(invoke: Invoke, vms: Path) -> None:
    assert invoke("create", "-x").code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--memory", "lots"],
        ["--memory", "-1"],
        ["--memory", "0"],
        ["--memory", "9" * 400],
        ["--memory", "2X"],
        ["--memory", ""],
        ["--disk", "1k"],
        ["--cpus", "two"],
        ["--cpus", "1.5"],
        ["--timeout", "0"],
        ["--timeout", "soon"],
        ["--fake-slow", "very"],
        ["--no-such-option"],
        ["--driver", "none-such"],
        ["--driver", "../fake"],
        ["--engine-opt", "hosts=tcp://0.0.0.0"],
        ["--engine-opt", "="],
        ["--engine-env", "novalue"],
        ["--engine-label", "provider=me"],
    ],
)
def test_wrong_words_are_a_usage_error(invoke: Invoke, vms: Path, words: list[str]) -> None:
    shown = invoke("create", *words, "dev")
    assert (shown.code, shown.out) == (2, ""), shown.err
    assert "Traceback" not in shown.err
    assert nothing_is_left(vms)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "9999T"], "but this host has"),
        (["--memory", "100"], "too little for Docker"),
        (["--disk", "1"], "too small for Docker"),
        (["--cpus", "0"], "a machine needs at least one CPU"),
        (["--cpus", "-1"], "a machine needs at least one CPU"),
        (["--fake-fails", "check"], "the fake fails at check"),
    ],
)
def test_what_cant_be_here_is_found_before_something_is_written(
    invoke: Invoke, vms: Path, words: list[str], message: str
) -> None:
    shown = invoke("create", *words, "dev")
    assert (shown.code, shown.out) == (3, "")
    assert message in shown.err
    assert re.search("^(Next|Hint): ", shown.err, re.MULTILINE)
    assert not store.folder().exists()


def test_without_qemu_the_package_is_named(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (vms.parent / "bin").mkdir()
    (vms.parent / "bin/apt-get").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(vms.parent / "bin"))
    shown = invoke("create", "--driver", "qemu", "dev")
    assert shown.code == 3
    assert "qemu-system-" in shown.err
    assert "apt-get install -y qemu-system-x86 qemu-utils" in shown.err
    assert nothing_is_left(vms)


def test_without_an_image_the_hint_builds_one(invoke: Invoke, vms: Path) -> None:
    cache.remove(cache.find("machineos"))
    shown = invoke("create", "dev")
    assert shown.code == 3
    assert shown.err.startswith("Error: machineos isn't in the cache\n")
    assert shown.err.endswith("\nNext: machine iso build\n")
    assert "machine iso ls" in invoke("create", "--image", "debian", "dev").err
    assert "there is no file" in invoke("create", "--image", "./none.iso", "dev").err
    assert nothing_is_left(vms)


@pytest.mark.parametrize(
    "words",
    [
        ["--image", "none-such"],
        ["--image", "./none.iso"],
        ["--image", f"http://127.0.0.1:1/x.qcow2#sha256={'0' * 64}"],
        ["--image", f"http://127.0.0.1:1/x.qcow2#sha256={'0' * 64}", "--offline"],
        ["--fake-fails", "check"],
        ["--fake-fails", "check-otherwise"],
        ["--memory", "900G"],
    ],
    ids=" ".join,
)
def test_what_is_found_before_anything_is_made_has_an_exit_code_of_its_own(
    invoke: Invoke, vms: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "PAUSE", 0.0)
    shown = invoke("create", *words, "dev")
    assert shown.code == 3, shown.err
    error = json.loads(invoke("create", "--json", *words, "dev").err)
    assert error["code"] == 3
    assert nothing_is_left(vms)


def test_a_damaged_image_too(invoke: Invoke, vms: Path) -> None:
    paths.Image(cache.find("machineos").digest).file.write_bytes(b"another")
    assert invoke("create", "dev").code == 3
    assert nothing_is_left(vms)


def test_an_iso_is_taken_by_its_path(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def add(path: Path, **_: object) -> paths.Image:
        taken.append(path)
        return cache.current("machineos")

    monkeypatch.setattr(machineos, "add", add)
    assert invoke("create", "--image", str(tmp_path / "my.iso"), "a", "b").code == 0
    assert taken == [tmp_path / "my.iso"]


def test_a_name_that_is_taken(invoke: Invoke, vms: Path) -> None:
    invoke("create", "dev")
    before = made("dev")
    shown = invoke("create", "dev")
    assert shown.code == 1
    assert 'Docker machine "dev" already exists' in shown.err
    assert "machine start dev" in shown.err
    assert made("dev") == before


def test_the_same_name_twice_is_once(invoke: Invoke, vms: Path) -> None:
    assert invoke("create", "dev", "dev").code == 0


@pytest.mark.parametrize("step", ["create", "start"])
def test_an_error_shows_its_details_and_what_to_do_next(invoke: Invoke, vms: Path, step: str) -> None:
    shown = invoke("create", "--quiet", "--fake-fails", step, "dev")
    assert shown == Outcome(
        1, "", f"Error: the fake fails at {step}\n  one\n  two\nNext: machine create --driver qemu\n"
    )
    assert nothing_is_left(vms)


def test_an_error_as_json(invoke: Invoke, vms: Path) -> None:
    shown = invoke("create", "--json", "--fake-fails", "start", "dev")
    assert (shown.code, json.loads(shown.out)) == (1, [])
    assert json.loads(shown.err) == {
        "machine": "",
        "error": "the fake fails at start",
        "details": "one\ntwo",
        "hint": "machine create --driver qemu",
        "code": 1,
    }


def test_one_that_fails_stops_no_other(invoke: Invoke, vms: Path) -> None:
    invoke("create", "b")
    shown = invoke("create", "a", "b", "c")
    assert shown.code == 1
    assert 'Error: b: Docker machine "b" already exists' in shown.err
    assert store.names() == ["a", "b", "c"]
    assert "a is ready" in shown.out
    assert "b is ready" not in shown.out


def test_a_bad_name_among_others_stops_all_before_they_begin(invoke: Invoke, vms: Path) -> None:
    assert invoke("create", "a", "../b").code == 2
    assert nothing_is_left(vms)


def test_a_timeout_names_the_phase(invoke: Invoke, vms: Path) -> None:
    shown = invoke("create", "--timeout", "1", "--fake-fails", "boot", "dev")
    assert shown.code == 1
    assert "Error: timed out after 1 s waiting for Docker to answer on tcp://127.77." in shown.err
    assert "  the hypervisor says: Running" in shown.err
    assert "--timeout" in shown.err
    assert nothing_is_left(vms)


@pytest.fixture
def settings(vms: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    monkeypatch.delenv("MACHINE_DRIVER")

    def write(text: str) -> None:
        (store / "config.toml").write_text(text)

    return write


def test_flags_win_over_the_environment_over_the_file_over_the_defaults(
    invoke: Invoke, settings: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings('driver = "fake"\n')
    invoke("create", "a")
    settings('driver = "fake"\nmemory = "1G"\ncpus = 1\ntls-san = ["x.test", "y.test"]\nfake-slow = 0\nno-tls = true\n')
    invoke("create", "b")
    monkeypatch.setenv("MACHINE_MEMORY", "768M")
    invoke("create", "c")
    invoke("create", "--memory", "512", "--tls-san", "z.test", "d")
    assert [made(name).memory_mib for name in "abcd"] == [2048, 1024, 768, 512]
    assert [made(name).cpus for name in "abcd"] == [2, 1, 1, 1]
    assert [made(name).tls_sans for name in "abcd"] == [(), ("x.test", "y.test"), ("x.test", "y.test"), ("z.test",)]
    assert [made(name).tls for name in "abcd"] == [True, False, False, False]
    assert made("b").options == {"slow": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory = ", "config.toml"),
        ("memroy = 1", "there is no option --memroy"),
        ('memory = "lots"', "lots"),
        ("memory = [1]", "1"),
        ('cpus = "two"', "two"),
        ('tls-san = "one.test"', "tls-san"),
        ("driver = 3", "3"),
    ],
)
def test_wrong_settings_are_a_usage_error(
    invoke: Invoke, settings: Callable[[str], None], vms: Path, text: str, message: str
) -> None:
    settings(text)
    shown = invoke("create", "--json", "dev")
    assert shown.code == 2, shown
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert nothing_is_left(vms)


def test_an_option_of_a_driver_from_its_variable(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAILS", "start")
    assert "the fake fails at start" in invoke("create", "dev").err


def test_a_broken_driver_breaks_no_other(
    invoke: Invoke, vms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (broken / "entry_points.txt").write_text("[machine.drivers]\nbroken = no_such_module_at_all:Driver\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert invoke("create", "--help").code == 0
    assert invoke("create", "dev").code == 0
    assert 'the driver "broken" can\'t be loaded' in invoke("create", "--driver", "broken", "x").err


@pytest.mark.parametrize(
    ("platform", "found", "drivers", "chosen"),
    [
        ("linux", True, ["qemu", "virtualbox"], "qemu"),
        ("darwin", True, ["qemu", "virtualbox"], "virtualbox"),
        ("win32", True, ["qemu", "virtualbox"], "virtualbox"),
        ("win32", False, ["qemu", "virtualbox"], "virtualbox"),
        ("darwin", False, ["qemu", "virtualbox"], "qemu"),
        ("darwin", True, ["qemu"], "qemu"),
    ],
)
def test_the_default_driver(
    monkeypatch: pytest.MonkeyPatch, platform: str, found: bool, drivers: list[str], chosen: str
) -> None:
    """found: also where VirtualBox's installer for macOS puts it, which isn't on PATH."""
    monkeypatch.setattr(registry.load("virtualbox"), "is_available", lambda: found)
    monkeypatch.setattr(registry, "names", lambda: drivers)
    assert driver_options.default_driver(platform) == chosen


# From here on with real processes.


def test_processes_that_want_the_same_name(begin: Begin, vms: Path) -> None:
    ends = [ended(process) for process in [begin("create", "-q", "dev") for _ in range(3)]]
    assert sorted(code for code, _, _ in ends) == [0, 1, 1]
    assert all("already exists" in err for code, _, err in ends if code)
    assert (vms / "dev").read_text() == State.RUNNING


def test_ten_processes_get_ten_addresses(begin: Begin, vms: Path) -> None:
    names = [f"m{number}" for number in range(10)]
    for code, _, err in [ended(process) for process in [begin("create", "-q", name) for name in names]]:
        assert (code, err) == (0, "")
    assert store.names() == names
    assert len({made(name).address for name in names}) == 10


@pytest.mark.parametrize("names", [["dev"], ["a", "b", "c"]])
def test_ctrl_c_leaves_nothing(begin: Begin, vms: Path, names: list[str]) -> None:
    process = begin("create", "--fake-fails", "boot", *names)
    await_(lambda: len(list(vms.iterdir())) == len(names) and all(map(_runs, vms.iterdir())))
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert nothing_is_left(vms)


def _runs(vm: Path) -> bool:
    try:
        return vm.read_text(encoding="utf-8") == State.RUNNING
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_ended_otherwise_leaves_nothing_either(begin: Begin, vms: Path, number: signal.Signals) -> None:
    process = begin("create", "--fake-slow", "600", "dev")
    await_((vms / "dev").exists)
    process.send_signal(number)
    assert ended(process)[0] == 130
    assert nothing_is_left(vms)


def test_nohup_create_survives_the_logout(begin: Begin, vms: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = begin("create", "--fake-slow", "1", "dev", preexec_fn=nohup)
    await_((vms / "dev").exists)
    process.send_signal(signal.SIGHUP)
    assert ended(process)[0] == 0
    assert (vms / "dev").read_text(encoding="utf-8") == State.RUNNING


def test_ctrl_c_while_the_driver_works(begin: Begin, vms: Path) -> None:
    process = begin("create", "--fake-slow", "600", "dev")
    await_((vms / "dev").exists)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert nothing_is_left(vms)


@pytest.mark.parametrize("verb", [["ls"], ["create", "dev"], ["rm", "-f", "dev"], ["status", "dev"]])
def test_after_kill_9_the_next_command_clears_up(begin: Begin, invoke: Invoke, vms: Path, verb: list[str]) -> None:
    process = begin("create", "--fake-slow", "600", "dev")
    await_((vms / "dev").exists)
    assert invoke("ls", "-q") == Outcome(0, "", "")
    assert (vms / "dev").exists()
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    shown = invoke(*verb)
    assert 'Removed what an interrupted "machine create dev" had left behind.' in shown.err
    if verb[0] == "create":
        assert (vms / "dev").read_text() == State.RUNNING
    else:
        assert nothing_is_left(vms)


@pytest.fixture
def tiny(tmp_path: Path, vms: Path) -> Iterator[Path]:
    """A file system of 4 MiB at the place of the machines."""
    folder = tmp_path / "store" / "machines"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system: needs Linux and root")
def test_a_full_disk_is_one_line_and_leaves_nothing(invoke: Invoke, vms: Path, tiny: Path) -> None:
    # Room for the first files, and none for the seed.
    with contextlib.suppress(OSError), (tiny / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"\0" * 4096)
    os.truncate(tiny / "ballast", (tiny / "ballast").stat().st_size - 20 * 4096)
    for words in (["dev"], ["a", "b"]):
        shown = invoke("create", "-q", *words)
        assert shown.code == 1
        assert "No space left on device" in shown.err
        assert "Traceback" not in shown.err
    error = json.loads(invoke("create", "--json", "dev").err)
    assert error["error"].startswith("No space left on device")
    assert sorted(path.name for path in tiny.iterdir()) == [".lock", "ballast"]
    assert list(vms.iterdir()) == []
    (tiny / "ballast").unlink()
    assert invoke("create", "-q", "dev").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits what a process may write")
def test_a_file_that_grows_too_large(begin: Begin, vms: Path) -> None:
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

    code, _, err = ended(begin("create", "-q", "dev", preexec_fn=limit))
    assert code == 1
    assert err.startswith("Error: File too large")
    assert nothing_is_left(vms)


def test_memory_larger_than_the_hosts_isnt_tried(invoke: Invoke, vms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "host_memory_mib", lambda: (4096, 4096))
    shown = invoke("create", "--memory", "8096", "dev")
    assert shown.code == 3
    assert shown.err.splitlines() == [
        "Error: the machine asks for 7.9 GiB of memory, but this host has 4 GiB",
        "Hint: use less memory: --memory 2G",
    ]
