"""A new server certificate for a machine that is there."""

from __future__ import annotations

from machine import certs, contexts, paths, probe, provision, registry, store
from machine.progress import Progress
from machine.spec import Machine, State


def is_ours(machine: Machine) -> bool:
    """Whether the machine's daemon has a certificate that we make."""
    return machine.tls and registry.load(machine.driver).kind.is_provisioned


def renew(name: str, progress: Progress) -> None:
    """Issue it, and bring it to the machine if that runs. Raises MachineError; nothing is lost then: run it again."""
    with store.changing(name) as machine:
        home = store.home(name)
        driver = probe.driver(machine, home)
        address = driver.address()
        certs.issue_server(
            paths.store() / "certs", home, names=[machine.name, *machine.tls_sans], addresses=[address.host]
        )
        contexts.refresh(machine, home, address)
        if driver.state() is State.RUNNING:
            provision.send_certificates(name, progress)
