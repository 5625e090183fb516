"""machine regenerate-certs."""

from __future__ import annotations

import json
import sys

import click

from machine import paths, store
from machine.cli import targets
from machine.cli.ask import confirmed
from machine.cli.options import machines_argument, quiet_option
from machine.errors import MachineError, Usage
from machine.instance import load
from machine.progress import Display
from machine.tls import certs


@click.command()
@click.option("-f", "--force", is_flag=True, help="Don't ask.")
@click.option("--client-certs", is_flag=True, help="Make a new client certificate too, which all machines share.")
@click.option("--ca", is_flag=True, help="Make a new CA, and new certificates for all machines.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help='Print [{"name", "expires"}].')
@machines_argument
def regenerate_certs(
    machines: tuple[str, ...], force: bool, client_certs: bool, ca: bool, quiet: bool, as_json: bool
) -> None:
    """Make new TLS certificates for the Docker daemons of machines. Containers keep running.

    A machine that runs gets them at once, the others at their next start.
    """
    from machine import renewal

    if ca and machines:
        raise Usage("--ca takes no names: a new CA is for all machines", hint="machine regenerate-certs --ca")
    wanted = [
        name
        for name in (targets.readable() if ca else targets.several(machines))
        if renewal.has_our_certificate(store.load(name))
    ]
    question = "Regenerate TLS machine certs?  Warning: this is irreversible."
    hint = "machine regenerate-certs -f"
    if not force and not confirmed(question, hint=hint, out=sys.stderr if quiet or as_json else sys.stdout):
        return
    folder = paths.store() / "certs"
    if ca or client_certs:
        certs.regenerate(folder, ca=ca)
    with Display(quiet=quiet or as_json) as display:
        _, code = targets.each(wanted, renewal.renew, display, as_json=as_json)
    if client_certs:
        _share_client(set(targets.readable()) - set(wanted))
    if as_json:
        print(json.dumps([_object(name) for name in wanted], indent=4))
    elif not quiet and not code:
        print("Regenerated TLS certificates" + (f" of {', '.join(wanted)}" if wanted else ""))
    targets.exit_with(code)


def _share_client(others: set[str]) -> None:
    """The machines that weren't named have a copy of the client's certificate too; their servers know its CA."""
    from machine import renewal
    from machine.docker import contexts

    for name in others:
        instance = load(name)
        if renewal.has_our_certificate(instance.machine):
            names, addresses = [name, *instance.machine.tls_sans], [instance.address.host]
            certs.renew_if_due(paths.store() / "certs", instance.folder, names=names, addresses=addresses, days=0)
            contexts.refresh(instance.docker())


def _object(name: str) -> dict[str, object]:
    try:
        expires: str | None = certs.expiry(store.folder_of(name).server_cert).isoformat()
    except MachineError:
        expires = None
    return {"name": name, "expires": expires}
