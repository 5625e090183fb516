"""Setting Docker up on machineos, which takes a folder of files as they stand in its seed."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from machine import settings
from machine.docker import daemon, daemon_json
from machine.errors import MachineError, ToolFailed, Usage
from machine.guest import host_settings
from machine.guest.provisioners import Provisioner

if TYPE_CHECKING:
    from machine.guest.steps import Steps


class Machineos(Provisioner):
    """It takes a folder of files, as they stand in the seed, and tells its services of what changed."""

    ids = frozenset({"machineos"})
    service = daemon.MACHINEOS
    _TOO_OLD = 75
    _SETTLE = (
        f"[ -x /usr/lib/machineos/own-settings ] || exit {_TOO_OLD}; cd /run/machineos && rm -f hosts sysctl.conf"
        " && tar -x && exec /usr/lib/machineos/own-settings"
    )
    _APPLY = (
        'umask 077; folder=$(mktemp -d) && tar -x -C "$folder" && /usr/lib/machineos/apply-seed "$folder"; '
        'code=$?; rm -r "$folder"; exit $code'
    )

    def provision(self, steps: Steps) -> None:
        from machine.guest import credentials, seed

        with steps.step("applying the machine's settings"):
            before = seed.read(self.folder.seed) if self.folder.seed.exists() else {}
            credentials.prepare(self.driver)
            files = seed.read(self.folder.seed)
            self._apply(files)
            for name in sorted(name for name in before.keys() | files.keys() if before.get(name) != files.get(name)):
                if name.startswith("machineos/"):
                    steps.did(f"sent another {name.removeprefix('machineos/')}")

    def send_certificates(self, steps: Steps) -> None:
        from machine.guest import seed

        # What it has now, and the new certificate: nothing else must change under running containers.
        files = seed.read(self.folder.seed)
        for name, path in (
            ("ca", self.folder.ca),
            ("server", self.folder.server_cert),
            ("server-key", self.folder.server_key),
        ):
            files[f"machineos/tls/{name}.pem"] = path.read_text(encoding="utf-8")
        self._apply(files)

    def upgrade(self, steps: Steps) -> None:
        raise Usage("machineos is upgraded as a whole", hint="machine iso build")

    def engine_files(self) -> dict[str, str]:
        """As apply-seed writes them: a later look at the machine must find nothing to change."""
        variables = daemon_json.docker_env(self.machine, daemon_json.proxies(os.environ))
        exports = "".join(f"export {_exported(line)}\n" for line in variables.splitlines())
        return {daemon.CONFIG: daemon_json.content(self.machine), "/run/machineos/docker.env": exports}

    def took_settings(self) -> None:
        from machine.guest import credentials, seed

        seed.overwrite(self.folder.seed, credentials.describe(self.machine, self.folder, self.driver))

    def settle(self, steps: Steps) -> None:
        files = {"hosts": settings.hosts(self.machine), "sysctl.conf": settings.sysctls(self.machine)}
        with steps.step("setting host names and the kernel"):
            packed = _packed({name: text for name, text in files.items() if text})
            done = self.remote.run(["sh", "-c", self._SETTLE], input=packed, check=False)
            if done.code == self._TOO_OLD:
                raise MachineError(
                    "this machine's system is too old to set host names and kernel settings",
                    hint=f"machine upgrade {self.machine.name}",
                )
            if done.code:
                raise host_settings.refused(self.machine.name, ToolFailed(["sysctl"], done.code, done.stderr))
            self.took_settings()

    def _apply(self, files: dict[str, str]) -> None:
        ours = {PurePosixPath(name): text for name, text in files.items()}
        packed = _packed(
            {str(path.relative_to("machineos")): text for path, text in ours.items() if path.parts[0] == "machineos"}
        )
        self.remote.run(["sh", "-c", self._APPLY], input=packed)


def _packed(files: dict[str, str]) -> bytes:
    """A tar archive of files by their names, readable by root only."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o600
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def _exported(line: str) -> str:
    """KEY=VALUE as KEY='VALUE', in which the shell finds nothing to expand."""
    key, _, value = line.partition("=")
    quoted = value.replace("'", "'\\''")
    return f"{key}='{quoted}'"
