"""machine create."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from machine import config, registry, resources, run
from machine.cli import driver_options, targets
from machine.cli.options import Architecture, Number, Seconds, Size
from machine.cli.sections import InSections, Option
from machine.errors import ToolMissing, before_anything
from machine.spec import Engine, Machine

if TYPE_CHECKING:
    from machine.progress import Display, Progress

MACHINEOS = "machineos"
FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)
_TYPED_DRIVER = "machine.cli.create.driver"
_ALL = "machine.cli.create.all"


class Create(InSections):
    """A command that has the options of every driver besides its own, and the defaults of config.toml.

    Its help shows those of the driver that was typed with it, else of the drivers that can work on this host.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx)[:-1], *driver_options.every(), *super().get_params(ctx)[-1:]]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        options = [*(option for option in self.params if isinstance(option, click.Option)), *driver_options.every()]
        known = {option.name: _kind(option) for option in options if option.name}
        # Its help can be read also while the file is wrong.
        given = {} if {"-h", "--help", "--help-all"} & set(args) else config.defaults(known)
        return super().make_context(info_name, args, parent, default_map=given, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # The help is printed while the words are read, and --driver may come after it.
        ctx.meta[_TYPED_DRIVER] = self.make_parser(ctx).parse_args(list(args))[0].get("driver")
        return super().parse_args(ctx, args)

    def shown_options(self, ctx: click.Context) -> list[click.Option]:
        ours = [param for param in click.Command.get_params(self, ctx) if isinstance(param, click.Option)]
        return [*ours, *(option for name in _shown_drivers(ctx) for option in driver_options.of(name))]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shows_all = ctx.meta.get(_ALL) or ctx.meta.get(_TYPED_DRIVER)
        if not shows_all and (others := driver_options.elsewhere()):
            with formatter.section(f"Drivers that lack something on this host ({', '.join(others)})"):
                formatter.write_dl(
                    [
                        ("machine create --driver NAME --help", "Show the options of one."),
                        ("machine create --help-all", "Show the options of all drivers."),
                    ],
                    col_max=40,
                )


def _shown_drivers(ctx: click.Context) -> list[str]:
    if ctx.meta.get(_ALL):
        return [*driver_options.available(), *driver_options.elsewhere()]
    if typed := ctx.meta.get(_TYPED_DRIVER):
        registry.load(typed)  # or it says what is wrong with it
        return [typed]
    return driver_options.available()


def _help_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


def _kind(option: click.Option) -> config.Kind:
    if option.is_flag:
        return config.Kind.SWITCH
    return config.Kind.LIST if option.multiple else config.Kind.VALUE


_option = functools.partial(click.option, cls=Option)
_docker = functools.partial(_option, section="Docker")


def _list(flag: str, metavar: str, text: str, **more: Any) -> Callable[[FC], FC]:
    return _docker(flag, multiple=True, metavar=metavar, help=f"{text} May be repeated.", **more)


@click.command(cls=Create, short_help="Make a machine and start it.")
@_option("-d", "--driver", metavar="NAME", envvar="MACHINE_DRIVER", help="The driver that makes the machine.")
@_option(
    *("-m", "--memory"),
    type=Size(),
    default=resources.DEFAULT_MEMORY,
    show_default=True,
    envvar="MACHINE_MEMORY",
    help="Size of the memory: MiB, or with a unit: 8G.",
)
@_option(
    "--cpus",
    type=Number(),
    default=resources.DEFAULT_CPUS,
    show_default=True,
    envvar="MACHINE_CPUS",
    help="Number of virtual processors.",
)
@_option(
    *("--disk", "disk"),
    type=Size(),
    default=resources.DEFAULT_DISK,
    show_default=True,
    envvar="MACHINE_DISK",
    help="Size of the disk: MiB, or with a unit: 40G. Its file grows as it fills.",
)
@_option(
    "--image",
    default=MACHINEOS,
    show_default=True,
    metavar="NAME",
    envvar="MACHINE_IMAGE",
    help="A name or digest (machine image ls, machine image catalog), a file, or a URL that ends with #sha256=...",
)
@_option(
    "--arch",
    type=Architecture(),
    metavar="NAME",
    envvar="MACHINE_ARCH",
    help="Its processor: x86_64 (amd64) or aarch64 (arm64). Default: this host's. The other one is emulated, slowly.",
)
@_option("--offline", is_flag=True, envvar="MACHINE_OFFLINE", help="Download nothing: the cache must have the image.")
@_option("--context", is_flag=True, help="Make a docker context machine-NAME too.")
@_option(
    "--timeout", type=Seconds(), default=300, show_default=True, help="Seconds to wait until Docker and SSH answer."
)
@_option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@_option("--json", "as_json", is_flag=True, help="Print the machine, or the error, as JSON.")
@_option(
    *("--help-all",),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_all,
    help="Show the options of all drivers.",
)
@_list("--engine-opt", "KEY=VALUE", "An option of dockerd.")
@_list("--engine-label", "KEY=VALUE", "A label of the daemon.")
@_list("--engine-env", "KEY=VALUE", "An environment variable of the daemon.")
@_list("--engine-registry-mirror", "URL", "A mirror of Docker's registry.", envvar="ENGINE_REGISTRY_MIRROR")
@_list("--engine-insecure-registry", "HOST:PORT", "A registry to use without TLS.")
@_docker("--engine-storage-driver", metavar="NAME", help="The same as --engine-opt storage-driver=NAME.")
@_list("--tls-san", "NAME", "A further name or address in the daemon's certificate.")
@_docker("--no-tls", is_flag=True, help="Use plain HTTP: every user of this computer gets root on the machine.")
@_docker("--no-host-network-ports", is_flag=True, help="Don't forward ports of containers with --network host.")
@_list(
    "--mount",
    "DIR[:PATH][:ro]",
    "Share a folder of this host, at the same path in the machine or at PATH. Default: `home`, your home folder.",
    section="Guest",
)
@_option(
    "--network",
    metavar="NAME",
    section="Guest",
    help="The network on which machines reach each other by name: one of `machine network ls`, or `none`. "
    "Default: `machines`.",
)
@_list("--host", "NAME=IP", "A host name and its address, for the machine's /etc/hosts.", section="Guest")
@_list("--sysctl", "KEY=VALUE", "A setting of the machine's kernel.", section="Guest")
@click.argument("machines", metavar="[NAME]...", nargs=-1)
def create(machines: tuple[str, ...], context: bool, quiet: bool, as_json: bool, timeout: float, **asked: Any) -> None:
    """Make machines and start them. Ends when Docker answers and SSH works; an error leaves nothing behind.

    NAME is `default` if it is left out.
    """
    from machine import progress, spec
    from machine.create import create as make
    from machine.docker import contexts
    from machine.instance import load
    from machine.shells import evaluated

    if context and not run.which("docker"):
        raise ToolMissing("docker", hint="install the docker client, or leave out --context")
    wanted = list(dict.fromkeys(machines)) or [targets.DEFAULT]
    for name in wanted:
        spec.check_new_name(name)
    with before_anything():
        boots = registry.load(asked["driver"] or driver_options.default_driver()).kind.is_ours
    made: dict[str, Machine] = {}
    with progress.Display(quiet=quiet or as_json) as display:
        with before_anything():
            image = obtained(asked, display) if boots else ""

        def work(name: str, shown: Progress) -> None:
            # Noted at once: the machine stays, also when its context can't be written.
            made[name] = make(drafted(name, image, asked), shown, timeout=timeout, needs_mounts=bool(asked["mount"]))
            if context:
                contexts.write(load(name).docker())

        _, code = targets.each(wanted, work, display, as_json=as_json)
    if as_json:
        print(json.dumps([dataclasses.asdict(made[name]) for name in wanted if name in made], indent=2))
    elif not quiet:
        for name in made:
            print(f"{name} is ready. To point the docker client at it, run: {evaluated('machine', 'env', name)}")
    targets.exit_with(code)


def typed(options: dict[str, Any]) -> dict[str, Any]:
    """What create would be given by these options, named without dashes: machine.yaml has them.

    The variables and config.toml count for the others, as on the command line. Raises click's UsageError, Usage.
    """
    words = []
    for name, value in options.items():
        items = value if isinstance(value, list) else [value]
        words += [f"--{name}"] * (value is True) if isinstance(value, bool) else [f"--{name}={item}" for item in items]
    context = create.make_context("create", words)
    return {key: value for key, value in context.params.items() if key not in {"machines", "quiet", "as_json"}}


def drafted(name: str, image: str, asked: dict[str, Any]) -> Machine:
    """The machine that is asked for by the options of create. image: its digest."""
    from machine.create import draft

    driver = asked["driver"] or driver_options.default_driver()
    chosen = registry.load(driver)
    memory, cpus, disk = (asked["memory"], asked["cpus"], asked["disk"]) if chosen.kind.is_ours else (0, 0, 0)
    machine = dataclasses.replace(
        draft(name, driver, image, memory_mib=memory, cpus=cpus, disk_mib=disk, architecture=asked["arch"] or ""),
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
        options=driver_options.own(driver, asked),
        **{"ssh_user": chosen.user, **driver_options.common(driver, asked)},
    )
    return dataclasses.replace(
        machine, mounts=_mounts(asked["mount"], machine), network=_network(asked["network"], machine)
    )


def _mounts(texts: tuple[str, ...], machine: Machine) -> tuple[str, ...]:
    from machine.create import default_mounts
    from machine.folders import mount_spec

    return mount_spec.resolved(texts) if texts else default_mounts(machine)


def _network(name: str | None, machine: Machine) -> str:
    from machine.create import default_network
    from machine.network import addresses

    if name is None:
        return default_network(machine)
    return "" if name == addresses.NONE else name


def _storage_driver(name: str | None) -> tuple[str, ...]:
    return (f"storage-driver={name}",) if name else ()


def obtained(asked: dict[str, Any], display: Display) -> str:
    """The digest of the chosen image, which is copied or downloaded into the cache if necessary."""
    text, offline, architecture = asked["image"], asked["offline"], asked["arch"] or ""
    with display.of(text.partition("#")[0]) as shown:
        if text == MACHINEOS:
            from machine.images import release

            return release.obtain(shown, offline=offline, architecture=architecture).digest
        from machine.images import catalog

        return catalog.obtain(text, shown, offline=offline, architecture=architecture).digest
