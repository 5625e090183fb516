"""machine autostart."""

from __future__ import annotations

import json

import click

from machine.cli import targets


@click.command()
@click.option("--json", "as_json", is_flag=True, help='Print {"name", "autostart": true or false}.')
@click.argument("name", metavar="NAME")
@click.argument("switch", metavar="[on|off]", type=click.Choice(["on", "off"]), required=False)
def autostart(name: str, switch: str | None, as_json: bool) -> None:
    """Start the machine when the host boots (on), or don't (off). Without on or off, print the setting."""
    from machine import capabilities

    chosen = targets.one(name)
    if switch:
        capabilities.set_autostart(chosen, switch == "on")
    if as_json:
        print(json.dumps({"name": chosen, "autostart": capabilities.autostart(chosen)}, indent=4))
    elif not switch:
        print("on" if capabilities.autostart(chosen) else "off")
