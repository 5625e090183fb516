"""Containers that bind a folder of the machine where the user means one of the host: it is empty."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from machine.folders import mount_spec


def unshared(containers: Iterable[Mapping[str, Any]], targets: Collection[str]) -> Iterator[tuple[str, str]]:
    """The names of containers, and paths that they bind, that this host has and the machine doesn't share.

    containers: as GET /containers/json has them. targets: the shared folders' paths in the machine.
    """
    for container in containers:
        for mount in container.get("Mounts") or ():
            path = str(mount.get("Source") or "")
            if (
                mount.get("Type") != "bind"
                or mount_spec.is_own(path)
                or any(mount_spec.below(path, one) for one in targets)
            ):
                continue
            if Path(path).exists():
                yield str((container.get("Names") or ["/?"])[0]).removeprefix("/"), path
