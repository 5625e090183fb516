"""machine autostart."""

from __future__ import annotations

import click

from machine.cli import names


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("switch", metavar="[on|off]", type=click.Choice(["on", "off"]), required=False)
def autostart(name: str, switch: str | None) -> None:
    """Let the machine be started when the host boots (on), or not (off); without either, print which it is."""
    from machine import snapshots

    chosen = names.one(name)
    if switch:
        snapshots.set_autostart(chosen, switch == "on")
    else:
        print("on" if snapshots.autostart(chosen) else "off")
