"""Docker contexts: the docker client's own way to name an engine. A machine's is machine-NAME.

They are made and removed by the docker client. What is in one is read from its files (docker/cli, cli/context/store:
contexts/meta/SHA256-OF-NAME/meta.json, contexts/tls/SHA256-OF-NAME/docker/), which costs nothing where there is none.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

from machine import paths
from machine.docker import api
from machine.errors import MachineError, ToolMissing
from machine.run import run, which

TIMEOUT = 30.0


def name(machine: str) -> str:
    # `default` can't be made: docker has a context of that name built in.
    return f"machine-{machine}"


def write(client: api.Client) -> bool:
    """Make or update the machine's context; False if it is up to date.

    Raises ToolMissing without a docker client, MachineError if a context with that name is for another engine.
    """
    machine = client.machine
    host = _host(machine.name)
    if host not in {None, client.address.url}:
        raise MachineError(
            f"the docker context {name(machine.name)} is for another engine: {host}",
            hint=f"remove it, if you don't need it: docker context rm {name(machine.name)}",
        )
    if host is not None and _has_certificates(client):
        return False
    if not which("docker"):
        raise ToolMissing("docker", hint="install the docker client")
    verb = "create" if host is None else "update"
    words = ["--description", f"machine {machine.name}", "--docker", _endpoint(client)]
    run(["docker", "context", verb, *words, name(machine.name)], timeout=TIMEOUT)
    return True


def is_stale(client: api.Client) -> bool:
    """Whether the machine has a context with old certificates."""
    return _host(client.machine.name) == client.address.url and not _has_certificates(client)


def refresh(client: api.Client) -> None:
    """Update the machine's context, if it has one. Raises MachineError."""
    if _host(client.machine.name) == client.address.url:
        write(client)


def remove(machine: str, url: Callable[[], str]) -> bool:
    """Remove the machine's context; False when there is none, or it is for another engine than the one at url."""
    host = _host(machine)
    if host is None or host != url():
        return False
    # -f: also one that is in use; the client then goes back to its own default.
    run(["docker", "context", "rm", "-f", name(machine)], timeout=TIMEOUT)
    return True


def use(machine: str) -> None:
    run(["docker", "context", "use", name(machine)], timeout=TIMEOUT)


def _endpoint(client: api.Client) -> str:
    """host=…,ca=…,cert=…,key=… as the client reads it: a line of comma-separated values."""
    fields, folder = [f"host={client.address.url}"], client.folder
    if client.machine.tls:
        fields += [f"ca={folder.ca}", f"cert={folder.cert}", f"key={folder.key}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _host(machine: str) -> str | None:
    """The URL in the machine's context, None when there is no such context."""
    try:
        found = json.loads((_folder() / "meta" / _key(machine) / "meta.json").read_text(encoding="utf-8"))
        return str(found["Endpoints"]["docker"]["Host"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _has_certificates(client: api.Client) -> bool:
    folder = client.folder
    kept = _folder() / "tls" / _key(client.machine.name) / "docker"
    try:
        return all(
            (kept / path.name).read_bytes() == path.read_bytes()
            for path in ((folder.ca, folder.cert, folder.key) if client.machine.tls else ())
        )
    except OSError:
        return False


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or paths.user_home() / ".docker") / "contexts"


def _key(machine: str) -> str:
    return hashlib.sha256(name(machine).encode()).hexdigest()
