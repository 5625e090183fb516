"""/etc/hosts and kernel settings of a host that has others of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from machine.errors import MachineError, ToolFailed
from machine.guest import host_settings
from machine.guest.steps import Steps
from machine.progress import Silent
from machine.run import Completed
from machine.spec import Machine


class Host:
    """Its files, and a kernel with two settings, which takes numbers only."""

    def __init__(self) -> None:
        self.files = {host_settings.HOSTS: "127.0.0.1 localhost\n"}
        self.kernel = {"vm.swappiness": "60", "vm.overcommit_memory": "0"}
        self.ran: list[str] = []

    def run(
        self, argv: Sequence[str], *, input: bytes | None = None, check: bool = True, timeout: float = 60
    ) -> Completed:
        self.ran.append(shlex.join(argv))
        key, _, value = argv[-1].partition("=")
        if key not in self.kernel or (value and not value.isdigit()):
            if check:
                raise ToolFailed(argv, 1, f"sysctl: cannot stat /proc/sys/{key}: No such file or directory")
            return Completed(list(argv), 1, "", "")
        self.kernel[key] = value or self.kernel[key]
        return Completed(list(argv), 0, self.kernel[key] + "\n", "")

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        self.files[path] = text


def settle(host: Host, hosts: tuple[str, ...] = (), sysctls: tuple[str, ...] = ()) -> list[str]:
    steps = Steps(Silent())
    machine = Machine("far", "generic", "", "", "", 0, 0, 0, hosts=hosts, sysctls=sysctls)
    host_settings.settle(host, machine, steps)
    return steps.changed


def test_nothing_asked_nothing_done() -> None:
    host = Host()
    assert (settle(host), host.ran, list(host.files)) == ([], [], [host_settings.HOSTS])


def test_names_come_and_go_and_the_hosts_own_stay() -> None:
    host = Host()
    assert settle(host, ("r.test=10.0.0.1",)) == ["wrote /etc/hosts"]
    host.files[host_settings.HOSTS] += "10.0.0.9 later\n"
    assert settle(host, ("r.test=10.0.0.1",)) == []
    settle(host, ("s.test=10.0.0.2",))
    assert host.files[host_settings.HOSTS] == (
        "127.0.0.1 localhost\n# machine: begin\n10.0.0.2 s.test\n# machine: end\n10.0.0.9 later\n"
    )
    settle(host)
    assert host.files[host_settings.HOSTS] == "127.0.0.1 localhost\n10.0.0.9 later\n"


def test_kernel_settings_get_their_old_values_back() -> None:
    host = Host()
    assert settle(host, (), ("vm.swappiness=10",)) == ["wrote /etc/sysctl.d/99-machine.conf"]
    assert (host.kernel["vm.swappiness"], host.files[host_settings.SYSCTLS]) == ("10", "vm.swappiness=10\n")
    ran = len(host.ran)
    assert (settle(host, (), ("vm.swappiness=10",)), len(host.ran)) == ([], ran)
    settle(host, (), ("vm.swappiness=20", "vm.overcommit_memory=1"))
    settle(host, (), ("vm.overcommit_memory=1",))
    assert host.kernel == {"vm.swappiness": "60", "vm.overcommit_memory": "1"}
    settle(host)
    assert (host.kernel["vm.overcommit_memory"], host.files[host_settings.SYSCTLS]) == ("0", "")


def test_a_kernel_setting_that_is_not_there_changes_nothing() -> None:
    host = Host()
    settle(host, (), ("vm.swappiness=10",))
    with pytest.raises(MachineError, match=r"the kernel refuses the setting: cannot stat /proc/sys/vm\.nosuch"):
        settle(host, (), ("vm.swappiness=20", "vm.nosuch=1"))
    assert (host.kernel["vm.swappiness"], host.files[host_settings.SYSCTLS]) == ("10", "vm.swappiness=10\n")
