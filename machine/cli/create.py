"""machine create."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from machine import config, registry, resources, run
from machine.cli import names
from machine.driver import Driver
from machine.errors import MachineError, ToolMissing, Usage, before_anything
from machine.spec import Engine, Machine, Option

if TYPE_CHECKING:
    from machine.progress import Display, Progress

MACHINEOS = "machineos"
FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)


class Create(click.Command):
    """A command that has the options of every driver besides its own, and the defaults of config.toml."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx)[:-1], *_driver_options(), *super().get_params(ctx)[-1:]]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        options = [*(option for option in self.params if isinstance(option, click.Option)), *_driver_options()]
        known = {option.name: _kind(option) for option in options if option.name}
        # Its help can be read also while the file is wrong.
        given = {} if {"-h", "--help"} & set(args) else config.defaults(known)
        return super().make_context(info_name, args, parent, default_map=given, **extra)


def _kind(option: click.Option) -> config.Kind:
    if option.is_flag:
        return config.Kind.SWITCH
    return config.Kind.LIST if option.multiple else config.Kind.VALUE


class Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return resources.mib(str(value))
        except Usage as error:
            self.fail(f"{error.message} ({error.hint})", param, ctx)


def _list(flag: str, text: str, envvar: str | None = None) -> Callable[[FC], FC]:
    return click.option(flag, multiple=True, metavar="VALUE", help=f"{text} May be repeated.", envvar=envvar)


@click.command(cls=Create, short_help="Make a machine and start it.")
@click.option("-d", "--driver", metavar="NAME", envvar="MACHINE_DRIVER", help="What makes the virtual machine.")
@click.option(
    "-m", "--memory", type=Size(), default="2G", show_default=True, envvar="MACHINE_MEMORY", help="MiB, or 8G."
)
@click.option("--cpus", type=int, default=2, show_default=True, envvar="MACHINE_CPUS", help="Virtual processors.")
@click.option(
    *("--disk", "disk"), type=Size(), default="20G", show_default=True, envvar="MACHINE_DISK", help="Grows as it fills."
)
@click.option(
    "--image",
    default=MACHINEOS,
    show_default=True,
    metavar="NAME",
    envvar="MACHINE_IMAGE",
    help="A name or digest (machine image ls, machine image catalog), a file, or a URL with #sha256=... behind it.",
)
@click.option(
    "--offline", is_flag=True, envvar="MACHINE_OFFLINE", help="Fetch nothing: the image must be in the cache."
)
@_list("--engine-opt", "An option of dockerd: KEY=VALUE.")
@_list("--engine-label", "A label of the daemon: KEY=VALUE.")
@_list("--engine-env", "An environment variable of the daemon: KEY=VALUE.")
@_list("--engine-registry-mirror", "A mirror of Docker's registry: URL.", "ENGINE_REGISTRY_MIRROR")
@_list("--engine-insecure-registry", "A registry spoken to without TLS: HOST:PORT.")
@click.option("--engine-storage-driver", metavar="NAME", help="The same as --engine-opt storage-driver=NAME.")
@_list("--host", "A name that the machine and its dockerd know: NAME=IP.")
@_list("--sysctl", "A setting of the machine's kernel: KEY=VALUE.")
@_list("--tls-san", "A further name or address in the daemon's certificate.")
@click.option(
    "--no-host-network-ports", is_flag=True, help="Leave ports of containers with --network host to the guest."
)
@click.option("--no-tls", is_flag=True, help="Plain HTTP: every user of this computer gets root on the machine.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300, show_default=True, help="Seconds until it must be ready."
)
@click.option("--context", is_flag=True, help="Make a docker context machine-NAME too.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the machine, or the error, as JSON.")
@click.argument("machines", metavar="[NAME]...", nargs=-1)
def create(machines: tuple[str, ...], context: bool, quiet: bool, as_json: bool, timeout: float, **asked: Any) -> None:
    """Make machines and start them. Ends when Docker answers and SSH lets in, or leaves nothing.

    NAME is `default` when it is left out.
    """
    from machine import contexts, probe, progress, spec
    from machine.create import create as make

    if context and not run.which("docker"):
        raise ToolMissing("docker", hint="install the docker client, or leave out --context")
    wanted = list(dict.fromkeys(machines)) or [names.DEFAULT]
    for name in wanted:
        spec.check_new_name(name)
    with before_anything():
        adopts = registry.load(asked["driver"] or default_driver()).adopts
    made: dict[str, Machine] = {}
    with progress.Display(quiet=quiet or as_json) as display:
        with before_anything():
            image = "" if adopts else _image(asked["image"], display, offline=asked["offline"])

        def work(name: str, shown: Progress) -> None:
            # Noted at once: the machine stays, also when its context can't be written.
            made[name] = make(_draft(name, image, asked), shown, timeout=timeout)
            if context:
                contexts.write(*probe.known(name))

        _, code = names.each(wanted, work, display, as_json=as_json)
    if as_json:
        print(json.dumps([dataclasses.asdict(made[name]) for name in wanted if name in made], indent=2))
    elif not quiet:
        for name in made:
            print(f'{name} is ready. To point the docker client at it, run: eval "$(machine env {name})"')
    names.exit_with(code)


def _draft(name: str, image: str, asked: dict[str, Any]) -> Machine:
    from machine.create import draft

    driver = asked["driver"] or default_driver()
    kind = registry.load(driver)
    memory, cpus, disk = (0, 0, 0) if kind.adopts else (asked["memory"], asked["cpus"], asked["disk"])
    return dataclasses.replace(
        draft(name, driver, image, memory_mib=memory, cpus=cpus, disk_mib=disk),
        tls=not asked["no_tls"],
        tls_sans=asked["tls_san"],
        hosts=asked["host"],
        sysctls=asked["sysctl"],
        host_network_ports=not asked["no_host_network_ports"],
        engine=Engine(
            options=(*asked["engine_opt"], *_storage_driver(asked["engine_storage_driver"])),
            labels=asked["engine_label"],
            environment=asked["engine_env"],
            registry_mirrors=asked["engine_registry_mirror"],
            insecure_registries=asked["engine_insecure_registry"],
        ),
        options=_own_options(driver, asked),
        **{"ssh_user": kind.user, **_common_options(driver, asked)},
    )


def _storage_driver(name: str | None) -> tuple[str, ...]:
    return (f"storage-driver={name}",) if name else ()


def default_driver(platform: str = sys.platform) -> str:
    """qemu; on macOS virtualbox where it is installed, on Windows always: the other drivers don't work there."""
    if (platform == "win32" or (platform == "darwin" and run.which("VBoxManage"))) and "virtualbox" in registry.names():
        return "virtualbox"
    return "qemu"


def _image(text: str, display: Display, *, offline: bool) -> str:
    """The digest of the image that is meant; what isn't in the cache is taken or fetched into it."""
    from machine import catalog, images

    if text == MACHINEOS:
        return images.current(text).digest
    with display.of(text.partition("#")[0]) as shown:
        return catalog.obtain(text, shown, offline=offline).digest


def _driver_options() -> list[click.Option]:
    return [option for name in registry.names() for option in _options_of(name)]


def _options_of(name: str) -> list[click.Option]:
    try:
        driver = registry.load(name)
    except MachineError:
        return []  # a broken driver must not break the others; --driver NAME says what is wrong with it
    return [_option(driver, field) for field in dataclasses.fields(driver.Options)]


def _option(driver: type[Driver], field: dataclasses.Field[Any]) -> click.Option:
    # A default of None tells an option that was typed from one that wasn't; the driver's dataclass has the real one.
    flag = field.metadata.get("flag", f"--{driver.name}-{field.name.replace('_', '-')}")
    text = field.metadata.get("help", "")
    shown = f"{text}  [default: {field.default}]" if isinstance(field.default, str | int) and field.default else text
    parameter = f"{driver.name}_{field.name}"
    if isinstance(field.default, bool):
        return click.Option(
            [flag, parameter], is_flag=True, default=None, help=text, envvar=field.metadata.get("envvar")
        )
    kind = int if isinstance(field.default, int) else str
    repeated = isinstance(field.default, tuple)
    return click.Option(
        [flag, parameter], type=kind, multiple=repeated, default=None, help=shown, envvar=field.metadata.get("envvar")
    )


def _own_options(driver: str, asked: dict[str, Any]) -> dict[str, Option]:
    typed = {field.name: value for field, value in _typed(driver, asked) if "sets" not in field.metadata}
    return {name: value for name, value in typed.items() if value != ()}


def _common_options(driver: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Fields of Machine that were asked for by a driver's own option: --virtualbox-memory is --memory."""
    return {
        field.metadata["sets"]: field.metadata.get("convert", int)(value)
        for field, value in _typed(driver, asked)
        if "sets" in field.metadata
    }


def _typed(driver: str, asked: dict[str, Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    for field in dataclasses.fields(registry.load(driver).Options):
        if (value := asked.get(f"{driver}_{field.name}")) is not None:
            yield field, value
