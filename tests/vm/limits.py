"""All that a guest's kernel and init derive from memory or processors, and much besides: to be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.vm.conftest import Vm

PROGRAMS = ("dockerd", "containerd", "sshd", "qemu-ga", "logger")
SEPARATOR = "=-="
OF_PROCESS = "set -- $(pidof {name}); sudo cat /proc/$1/limits"
COMMANDS = (
    "sudo sysctl -a 2>/dev/null",
    "ulimit -a",
    "df -k",
    "df -i",
    "cat /proc/mounts",
    "cd /sys/kernel/mm/transparent_hugepage; grep . enabled defrag use_zero_page khugepaged/defrag",
    "cd /sys/fs/cgroup; sudo grep -r . $(find -maxdepth 2 -name '*.max')",
    *(OF_PROCESS.format(name=name) for name in PROGRAMS),
)
IN_MEMORY = ("/", "/dev", "/dev/shm", "/run")
# Counters; hash tables, which have one size for good; what the kernel sets by itself, by zones, when memory comes.
PASSING = re.compile(
    r"fs\.(dentry-state|file-nr|inode-|quota\.|aio-nr)|kernel\.(ns_last_pid|random\.|pty\.nr)"
    r"|net\.netfilter\.nf_conntrack_count|net\.ipv4\.(tcp_ehash|udp_hash)_entries|.*\.veth"
    r"|vm\.(min_free|user_reserve|admin_reserve)_kbytes"
)


def limits(vm: Vm) -> dict[str, str]:
    """What the guest tells, by name, in its own units."""
    told = vm.ssh(f"; echo {SEPARATOR}; ".join(f"({command})" for command in COMMANDS), timeout=300).out
    sysctl, ulimit, sizes, inodes, mounts, pages, cgroups, *programs = told.split(f"{SEPARATOR}\n")
    found = dict(line.split(" = ", 1) for line in sysctl.splitlines() if " = " in line)
    found |= dict(re.split(r" +(?=\S+$)", line, maxsplit=1) for line in ulimit.splitlines())
    found |= {f"size of {place}": size for place, size in _in_memory(sizes)}
    found |= {f"inodes of {place}": count for place, count in _in_memory(inodes)}
    found |= {f"flags of {place}": flags for place, flags in _flags(mounts)}
    found |= dict(line.rsplit(":", 1) for line in [*pages.splitlines(), *cgroups.splitlines()])
    for name, text in zip(PROGRAMS, programs, strict=True):
        found |= {f"{name}: {line[:26].strip()}": line[26:] for line in text.splitlines()}
    return {key: " ".join(value.split()) for key, value in found.items() if not PASSING.match(key)}


def in_container(vm: Vm) -> dict[str, str]:
    """The limits of a program in a container of the image busybox."""
    told = vm.docker("run", "--rm", "busybox", "cat", "/proc/self/limits").lines
    return {line[:26].strip(): " ".join(line[26:].split()) for line in told}


def different(one: dict[str, str], other: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What isn't alike in both; numbers may differ by 3 %, as what the kernel itself takes does."""
    pairs = {key: (one.get(key, ""), other.get(key, "")) for key in one.keys() | other.keys()}
    return {key: pair for key, pair in sorted(pairs.items()) if not _alike(*pair)}


def _alike(one: str, other: str) -> bool:
    numbers = [(int(a), int(b)) for a, b in zip(re.findall(r"\d+", one), re.findall(r"\d+", other), strict=False)]
    same_words = re.sub(r"\d+", "0", one) == re.sub(r"\d+", "0", other)
    return same_words and all(abs(a - b) <= 0.03 * max(a, b) for a, b in numbers)


def _in_memory(df: str) -> Iterator[tuple[str, str]]:
    for words in map(str.split, df.splitlines()):
        if words[-1] in IN_MEMORY:
            yield words[-1], words[1]


def _flags(mounts: str) -> Iterator[tuple[str, str]]:
    """Without size and nr_inodes, which the kernel only tells once they were set by hand."""
    for _, place, _, options, *_ in map(str.split, mounts.splitlines()):
        if place in IN_MEMORY:
            yield place, re.sub(r",(size|nr_inodes)=\w+", "", options)
