"""How each kind of system runs dockerd: where its settings lie, and the commands that bring them into use."""

from __future__ import annotations

from dataclasses import dataclass

CONFIG = "/etc/docker/daemon.json"


@dataclass(frozen=True)
class Service:
    """Lines for the system's shell, run as root.

    restart: ends when the old daemon has ended; whether the new one comes up is seen on its port and in its log.
    mark: prints where the daemon's log ends now. log: prints what was added since the mark "$1", at most 200 lines.
    """

    restart: str
    mark: str
    log: str


# All daemons have this pidfile, whoever starts them.
RELOAD = 'kill -HUP "$(cat /var/run/docker.pid)"'


def _file(path: str) -> dict[str, str]:
    # A log that was rotated since is shorter than the mark: then all of it is new.
    new = f'if [ "$(wc -c <{path})" -ge "$1" ]; then tail -c +"$(($1 + 1))" {path}; else cat {path}; fi'
    return {"mark": f"wc -c <{path} 2>/dev/null || echo 0", "log": f"{{ {new}; }} | tail -n 200"}


MACHINEOS = Service(
    # init starts it again.
    restart="pid=$(cat /run/docker.pid 2>/dev/null) || exit 0; "
    'kill "$pid" 2>/dev/null || exit 0; while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done',
    **_file("/var/log/dockerd.log"),
)
SYSTEMD = Service(
    # A daemon that failed a few times in a row isn't started again until the failures are forgotten.
    restart="systemctl daemon-reload; systemctl reset-failed docker 2>/dev/null; systemctl restart docker",
    mark="date +%s",
    log='journalctl -u docker -o cat --no-pager -n 200 --since "@$1"',
)
OPENRC = Service(restart="rc-service docker restart", **_file("/var/log/docker.log"))
