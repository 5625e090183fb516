"""Why dockerd doesn't start, in its own words, within seconds. A time-out would explain nothing.

machineos writes dockerd's last words to the console each time that dockerd ends, and init starts it again. If dockerd
refuses a setting, the same words come twice. Errors that may go away at the next start are ignored.
"""

from __future__ import annotations

import re
from pathlib import Path

from machine.errors import EngineRefused

# Bytes of the console to read: dockerd's last words of some fifty starts.
_WINDOW = 65536
_LINE = re.compile(r"machineos: \[ *[\d.]+\] (.*)")
_ENDED = "dockerd ended, its last words:"
# "  Nov 27 14:30:11 dev local0.info dockerd: failed to start daemon: ..."
_TAG = re.compile(r"^.*?\bdockerd(?:\[\d+\])?: ")
_FATAL = re.compile(
    r"(?:failed to (?:start daemon|load listeners)|unable to configure the Docker daemon|Error during .id lookup).*"
)
# dockerd reads its settings before anything else, so this error comes each time.
_AT_ONCE = "unable to configure the Docker daemon"
_PASSES = re.compile(r"deadline exceeded|timed? ?out|containerd.*(?:dial|connection|connect)|pid file found")


def check(console: Path, *, hint: str = "") -> None:
    """Raise EngineRefused when the console of a booting machine says that dockerd can't start."""
    try:
        with console.open("rb") as file:
            file.seek(max(0, console.stat().st_size - _WINDOW))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return
    if found := words(text):
        raise EngineRefused(found, hint=hint)


def words(console: str) -> str:
    """dockerd's last words if they are a refusal, else ""."""
    reasons = [reason for reason in map(_reason, _ends(console)) if reason]
    if not reasons or not (_AT_ONCE in reasons[-1] or reasons[-2:-1] == reasons[-1:]):
        return ""
    return reasons[-1]


def _reason(end: str) -> str:
    """Why dockerd ended: the lines at the very end that don't have its log's form."""
    last = end.strip().rpartition("\n")[2]
    return fatal(end) or ("" if "level=" in last or last.startswith("{") or _PASSES.search(last) else last)


def fatal(log: str) -> str:
    """The last line of dockerd's log that explains its end; "" when there is none, or the cause may go away."""
    found: str = ["", *_FATAL.findall(log)][-1]
    return "" if _PASSES.search(found) else found.strip()


def _ends(console: str) -> list[str]:
    """dockerd's last words at each of its ends since the guest booted and since Docker was ready."""
    ends: list[str] = []
    inside = False
    for line in map(_LINE.search, console.splitlines()):
        text = line[1] if line else ""
        if text in {"init is up", "docker is ready"}:
            ends, inside = [], False
        elif text == _ENDED:
            ends.append("")
            inside = True
        elif inside and text.startswith("  "):
            ends[-1] += _TAG.sub("", text) + "\n"
        elif text:
            inside = False
    return ends
