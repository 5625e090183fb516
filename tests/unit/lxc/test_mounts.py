"""The thread with a mount namespace of its own. The system calls are for tests/vm; here only what is around them."""

import threading

import pytest
from machine.drivers.lxc import mounts


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []
    monkeypatch.setattr(mounts, "unshare", lambda flags: called.append(f"unshare {flags:#x}"))
    monkeypatch.setattr(mounts, "set_propagation", lambda path, flags: called.append(f"{path} {flags:#x}"))
    return called


def test_work_is_done_apart_from_other_threads(calls: list[str]) -> None:
    mounts.apart(lambda: calls.append(threading.current_thread().name))
    assert calls[:2] == ["unshare 0x20000", "/ 0x84000"]
    assert calls[2] != threading.current_thread().name


def test_its_errors_are_ours() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        mounts.apart(fail)
