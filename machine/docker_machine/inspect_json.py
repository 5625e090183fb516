"""A machine in the shape of docker-machine's config.json, which scripts read with `inspect --format`.

It has all keys of docker-machine's HostOptions, and those keys of Driver that scripts may use: Driver.{IPAddress,
MachineName, SSHUser, SSHPort, SSHKeyPath, StorePath, CPU, Memory, DiskSize, EnginePort, Swarm…}. Keys without a meaning
here (Dns, GraphDir, Swarm…, the paths of certificates in the machine) have docker-machine's unset values.
State, Architecture and Machine (machine.json) are new.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from machine import spec
from machine.errors import MachineError

if TYPE_CHECKING:
    from machine.goformat import Value
    from machine.instance import Instance
    from machine.spec import Address, Machine

CONFIG_VERSION = 3
# Classic Swarm is gone; these are docker-machine's values for a machine outside of one.
_NO_SWARM: dict[str, Value] = {
    "Address": "",
    "Agent": False,
    "ArbitraryFlags": None,
    "ArbitraryJoinFlags": None,
    "Discovery": "",
    "Env": None,
    "Heartbeat": 0,
    "Host": "",
    "Image": "",
    "IsExperimental": False,
    "IsSwarm": False,
    "Master": False,
    "Overcommit": 0,
    "Strategy": "",
}


def describe(instance: Instance, state: str, architecture: str) -> dict[str, Value]:
    """docker-machine calls its sizes MB; they are MiB, like ours."""
    machine, folder, address = instance.machine, instance.folder, _address(instance)
    certs = folder.store / "certs"
    return {
        "ConfigVersion": CONFIG_VERSION,
        "Driver": {
            "IPAddress": address.host if address else "",
            "MachineName": machine.name,
            "SSHUser": machine.ssh_user,
            "SSHPort": address.ssh_port if address else 0,
            "SSHKeyPath": str(folder.ssh_key),
            "StorePath": str(folder.store),
            "CPU": machine.cpus,
            "Memory": machine.memory_mib,
            "DiskSize": machine.disk_mib,
            "EnginePort": address.docker_port if address else 0,
            "SwarmDiscovery": "",
            "SwarmHost": "",
            "SwarmMaster": False,
        },
        "DriverName": machine.driver,
        "HostOptions": {
            "AuthOptions": {
                "CertDir": str(certs),
                "CaCertPath": str(certs / "ca.pem"),
                "CaPrivateKeyPath": str(certs / "ca-key.pem"),
                "ClientCertPath": str(certs / "cert.pem"),
                "ClientKeyPath": str(certs / "key.pem"),
                "ServerCertPath": str(folder.server_cert),
                "ServerKeyPath": str(folder.server_key),
                "CaCertRemotePath": "",
                "ServerCertRemotePath": "",
                "ServerKeyRemotePath": "",
                "ServerCertSANs": machine.tls_sans,
                "StorePath": str(folder.path),
            },
            "Disk": 0,
            "Driver": "",
            "EngineOptions": engine_options(machine),
            "Memory": 0,
            "SwarmOptions": _NO_SWARM,
        },
        "Name": machine.name,
        "State": state,
        "Architecture": architecture,
        "Machine": json.loads(spec.dumps(machine)),
    }


def _address(instance: Instance) -> Address | None:
    try:
        return instance.address
    except MachineError:
        return None


def engine_options(machine: Machine | None) -> dict[str, Value]:
    """machine=None gives default values, so that a format can be validated."""
    engine = machine.engine if machine else spec.Engine()
    drivers = [
        option.partition("=")[2] for option in engine.options if option.lstrip("-").startswith("storage-driver=")
    ]
    return {
        "ArbitraryFlags": engine.options,
        "Dns": None,
        "Env": engine.environment,
        "GraphDir": "",
        "InsecureRegistry": engine.insecure_registries,
        "InstallURL": "",
        "Ipv6": False,
        "Labels": engine.labels,
        "LogLevel": "",
        "RegistryMirror": engine.registry_mirrors,
        "SelinuxEnabled": False,
        "StorageDriver": drivers[-1] if drivers else "",
        "TlsVerify": machine.tls if machine else False,
    }
