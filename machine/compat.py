"""A machine in the shape of docker-machine's config.json, which scripts read with `inspect --format`.

Kept are the keys that a script can want: Name, DriverName, ConfigVersion; Driver.{IPAddress, MachineName, SSHUser,
SSHPort, SSHKeyPath, StorePath, CPU, Memory, DiskSize, EnginePort}; HostOptions.EngineOptions.{ArbitraryFlags, Env,
InsecureRegistry, Labels, RegistryMirror, StorageDriver, TlsVerify}; HostOptions.AuthOptions.{CertDir, CaCertPath,
CaPrivateKeyPath, ClientCertPath, ClientKeyPath, ServerCertPath, ServerKeyPath, ServerCertSANs, StorePath};
HostOptions.SwarmOptions.IsSwarm. New are State and Machine, which is machine.json.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from machine import spec

if TYPE_CHECKING:
    from machine.goformat import Value
    from machine.paths import Home
    from machine.spec import Address, Machine

CONFIG_VERSION = 3


def describe(machine: Machine, home: Home, address: Address | None, state: str) -> dict[str, Value]:
    """address is None while it isn't known. Sizes are in MB as docker-machine has them, which are our MiB."""
    certs = home.store / "certs"
    return {
        "ConfigVersion": CONFIG_VERSION,
        "Driver": {
            "IPAddress": address.host if address else "",
            "MachineName": machine.name,
            "SSHUser": machine.ssh_user,
            "SSHPort": address.ssh_port if address else 0,
            "SSHKeyPath": str(home.ssh_key),
            "StorePath": str(home.store),
            "CPU": machine.cpus,
            "Memory": machine.memory_mib,
            "DiskSize": machine.disk_mib,
            "EnginePort": address.docker_port if address else 0,
        },
        "DriverName": machine.driver,
        "HostOptions": {
            "AuthOptions": {
                "CertDir": str(certs),
                "CaCertPath": str(certs / "ca.pem"),
                "CaPrivateKeyPath": str(certs / "ca-key.pem"),
                "ClientCertPath": str(certs / "cert.pem"),
                "ClientKeyPath": str(certs / "key.pem"),
                "ServerCertPath": str(home.server_cert),
                "ServerKeyPath": str(home.server_key),
                "ServerCertSANs": machine.tls_sans,
                "StorePath": str(home.folder),
            },
            "EngineOptions": engine_options(machine),
            "SwarmOptions": {"IsSwarm": False},
        },
        "Name": machine.name,
        "State": state,
        "Machine": json.loads(spec.dumps(machine)),
    }


def engine_options(machine: Machine | None) -> dict[str, Value]:
    """The same keys for no machine, so that a template can be checked."""
    engine = machine.engine if machine else spec.Engine()
    drivers = [
        option.partition("=")[2] for option in engine.options if option.lstrip("-").startswith("storage-driver=")
    ]
    return {
        "ArbitraryFlags": engine.options,
        "Env": engine.environment,
        "InsecureRegistry": engine.insecure_registries,
        "Labels": engine.labels,
        "RegistryMirror": engine.registry_mirrors,
        "StorageDriver": drivers[-1] if drivers else "",
        "TlsVerify": machine.tls if machine else False,
    }
