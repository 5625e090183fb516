"""A new server certificate for an existing machine."""

from __future__ import annotations

from machine import paths, registry
from machine.docker import contexts
from machine.guest import provision
from machine.instance import changing
from machine.progress import Progress
from machine.spec import Machine, State
from machine.tls import certs


def has_our_certificate(machine: Machine) -> bool:
    """Whether we make the certificate of the machine's daemon."""
    return machine.tls and registry.load(machine.driver).kind.is_provisioned


def renew(name: str, progress: Progress) -> None:
    """Issue it, and bring it to the machine if that runs. Raises MachineError; nothing is lost then: run it again."""
    with changing(name) as instance:
        names = [name, *instance.machine.tls_sans]
        certs.issue_server(paths.store() / "certs", instance.folder, names=names, addresses=[instance.address.host])
        contexts.refresh(instance.docker())
        if instance.driver.state() is State.RUNNING:
            provision.send_certificates(instance, progress)
