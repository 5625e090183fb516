"""A stand-in for docker.exe, as far as contexts go: context create, update, rm and use, in the client's own files.

docker/cli, cli/context/store: contexts/meta/SHA256-OF-NAME/meta.json, contexts/tls/SHA256-OF-NAME/docker/*.pem.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def write(name: str, endpoint: str) -> None:
    fields = dict(field.split("=", 1) for field in next(csv.reader([endpoint])))
    key = hashlib.sha256(name.encode()).hexdigest()
    meta, tls = (FOLDER / "contexts" / kind / key for kind in ("meta", "tls"))
    meta.mkdir(parents=True, exist_ok=True)
    told = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": fields["host"], "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(told), encoding="utf-8")
    for kind in ("ca", "cert", "key"):
        if kind in fields:
            (tls / "docker").mkdir(parents=True, exist_ok=True)
            shutil.copy(fields[kind], tls / "docker" / f"{kind}.pem")


def remove(name: str) -> None:
    key = hashlib.sha256(name.encode()).hexdigest()
    for kind in ("meta", "tls"):
        shutil.rmtree(FOLDER / "contexts" / kind / key, ignore_errors=True)


def main(words: list[str]) -> int:
    match words:
        case ["context", "create" | "update", *options, name]:
            write(name, options[options.index("--docker") + 1])
        case ["context", "rm", "-f", name]:
            remove(name)
        case ["context", "use", name]:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / "config.json").write_text(json.dumps({"currentContext": name}), encoding="utf-8")
        case _:
            print(f"unknown command: docker {' '.join(words)}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
