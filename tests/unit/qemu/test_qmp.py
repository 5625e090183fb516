import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_qmp import HANG_UP, Server, agent, monitor
from machine.drivers.qemu.qmp import GuestAgent, Qmp

from machine.errors import DriverFailed

EVENT = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


def test_a_command_and_its_answer(path: Path) -> None:
    with monitor(path, {"query-status": {"status": "running"}}) as server, Qmp(path) as qmp:
        assert qmp.execute("query-status") == {"status": "running"}
        qmp.execute("device_add", driver="pc-dimm", id="d0")
    assert server.asked == [
        {"execute": "qmp_capabilities"},
        {"execute": "query-status"},
        {"execute": "device_add", "arguments": {"driver": "pc-dimm", "id": "d0"}},
    ]


def test_events_between_a_command_and_its_answer_are_passed_over(path: Path) -> None:
    answers = {"stop": [EVENT, {"event": "RESUME"}, {"return": 1}], "cont": [{"return": 2}, EVENT], "x": {"y": 3}}
    with monitor(path, answers), Qmp(path) as qmp:
        assert [qmp.execute(command) for command in ("stop", "cont", "x")] == [1, 2, {"y": 3}]


def test_a_refused_command_says_why(path: Path) -> None:
    refusal = [{"error": {"class": "GenericError", "desc": "no such device"}}]
    with monitor(path, {"device_del": refusal}), Qmp(path) as qmp:
        with pytest.raises(DriverFailed, match="QEMU refused device_del: no such device"):
            qmp.execute("device_del", id="x")
        assert qmp.execute("query-status") == {}


def test_the_human_monitor(path: Path) -> None:
    with monitor(path, {"human-monitor-command": "could not set up\r\n"}) as server, Qmp(path) as qmp:
        assert qmp.human("hostfwd_add net tcp::80-:80") == "could not set up"
    assert server.asked[-1]["arguments"] == {"command-line": "hostfwd_add net tcp::80-:80"}


def test_an_answer_in_pieces_and_two_in_one(path: Path) -> None:
    def slowly(_: object) -> list[Any]:
        time.sleep(0.05)
        return [b'n": 1}\n{"return": 2}\n']

    with monitor(path, {"one": [b'{"retur'], "two": slowly, "three": []}), Qmp(path) as qmp:
        qmp.send({"execute": "one"})
        assert qmp.execute("two") == 1
        assert qmp.execute("three") == 2


def wait_only(qmp: Qmp, seconds: float) -> None:
    """From now on: the connection itself is made in its own time."""
    qmp.timeout = seconds
    qmp.socket.settimeout(seconds)


def test_a_late_answer_isnt_taken_for_the_next_one(path: Path) -> None:
    """QEMU was silent for longer than we waited, and then says all at once."""
    late = [{"return": "of stop", "id": 2}, {"error": {"desc": "of stop, too"}, "id": 2}]
    with monitor(path, {"stop": [], "cont": [*late, {"return": "of cont"}]}), Qmp(path) as qmp:
        wait_only(qmp, 0.2)
        with pytest.raises(DriverFailed, match="no answer"):
            qmp.execute("stop")
        wait_only(qmp, 60)
        assert qmp.execute("cont") == "of cont"


def test_a_command_that_qemu_couldnt_read(path: Path) -> None:
    unreadable = b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'
    with monitor(path, {"x": [unreadable]}), Qmp(path) as qmp, pytest.raises(DriverFailed, match="JSON parse error"):
        qmp.execute("x")


def test_events_without_end_are_no_answer(path: Path) -> None:
    with monitor(path, {"x": [EVENT] * 50}), Qmp(path) as qmp:
        wait_only(qmp, 0.1)
        with pytest.raises(DriverFailed, match="within"):
            qmp.execute("x")


def test_nobody_listens(path: Path) -> None:
    with pytest.raises(DriverFailed, match=r"QEMU doesn't answer on qmp\.sock: No such file"):
        Qmp(path)
    with monitor(path):
        pass
    with pytest.raises(DriverFailed, match="nothing listens there"):
        Qmp(path)


def test_a_monitor_that_says_nothing_has_a_deadline(path: Path) -> None:
    with monitor(path, {"query-status": []}), Qmp(path) as qmp:
        wait_only(qmp, 0.1)
        with pytest.raises(DriverFailed, match=r"no answer on qmp\.sock within 0\.1 s"):
            qmp.execute("query-status")
    with agent(path.with_name("silent"), lambda _: []), pytest.raises(DriverFailed, match="no answer"):
        Qmp(path.with_name("silent"), timeout=0.1)


def test_a_monitor_that_hangs_up(path: Path) -> None:
    with monitor(path, {"quit": [{"return": {}}, HANG_UP]}), Qmp(path) as qmp:
        qmp.execute("quit")
        for _ in range(3):
            with pytest.raises(DriverFailed, match="QEMU closed"):
                qmp.execute("query-status")
    with monitor(path.with_name("b"), {"qmp_capabilities": [HANG_UP]}), pytest.raises(DriverFailed, match="closed"):
        Qmp(path.with_name("b"))


@pytest.mark.parametrize("line", [b"garbage\n", b"[1]\n", b'{"return": \n', b"\xfe\xff\xfe\n", b"3\n"])
def test_another_protocol_is_an_error_and_no_traceback(path: Path, line: bytes) -> None:
    foreign = pytest.raises(DriverFailed, match="speaks another protocol")
    with monitor(path, {"query-status": [line]}), Qmp(path) as qmp, foreign:
        qmp.execute("query-status")


def test_the_connection_is_closed_after_use(path: Path) -> None:
    with monitor(path):
        with Qmp(path) as qmp:
            pass
        assert qmp.socket.fileno() == -1


def answering(stale: list[Any]) -> Any:
    """An agent that has stale answers on its channel, and returns the name of what it is asked."""

    def answer(message: dict[str, Any]) -> list[Any]:
        if message["execute"] == "guest-sync-delimited":
            number = str(message["arguments"]["id"]).encode()
            return [*stale, b"\xff" + b'{"return": ' + number + b"}\n"]
        if message["execute"] == "guest-refuse":
            return [{"error": {"class": "GenericError", "desc": "disabled"}}]
        return [{"return": message["execute"]}]

    return answer


@pytest.fixture
def guest(path: Path) -> Iterator[Server]:
    with agent(path, answering([])) as server:
        yield server


def test_the_agent_is_synchronised_before_its_first_command(path: Path, guest: Server) -> None:
    with GuestAgent(path) as connection:
        assert connection.execute("guest-ping") == "guest-ping"
        connection.execute("guest-exec", path="/bin/true", **{"capture-output": True})
    assert guest.raw.startswith(b'\xff{"execute": "guest-sync-delimited"')
    assert guest.commands == ["guest-sync-delimited", "guest-ping", "guest-exec"]
    assert guest.asked[-1]["arguments"] == {"path": "/bin/true", "capture-output": True}


@pytest.mark.parametrize(
    "stale",
    [
        [{"return": 17}],
        [{"return": {}}, {"error": {"desc": "JSON parse error"}}],
        [b'{"return": {"half'],
        [b'{"return": {"half\n'],
        [b"\xff\xff"],
        [b"\n\n"],
    ],
    ids=["another-number", "two", "half-a-line", "a-broken-line", "delimiters", "empty-lines"],
)
def test_what_an_earlier_client_left_on_the_channel_is_passed_over(path: Path, stale: list[Any]) -> None:
    with agent(path, answering(stale)), GuestAgent(path) as connection:
        assert connection.execute("guest-ping") == "guest-ping"


def test_an_agent_that_isnt_up_has_a_deadline(path: Path) -> None:
    with agent(path, lambda _: []), pytest.raises(DriverFailed, match="no answer"):
        GuestAgent(path, timeout=0.1)


def test_the_agent_refuses(path: Path, guest: Server) -> None:
    with GuestAgent(path) as connection, pytest.raises(DriverFailed, match="refused guest-refuse: disabled"):
        connection.execute("guest-refuse")


def test_a_program_of_the_guest(path: Path) -> None:
    said = base64.b64encode(b"it said \xff\n").decode()
    ends: list[dict[str, Any]] = [{"exited": False}, {"exited": True, "exitcode": 0, "out-data": said}]

    def answer(message: dict[str, Any]) -> list[Any]:
        if message["execute"] == "guest-exec":
            return [{"return": {"pid": 42}}]
        if message["execute"] == "guest-exec-status":
            assert message["arguments"] == {"pid": 42}
            return [{"return": ends.pop(0) if len(ends) > 1 or ends[0]["exited"] else ends[0]}]
        otherwise: list[Any] = answering([])(message)
        return otherwise

    with agent(path, answer) as server, GuestAgent(path) as connection:
        assert connection.run("/bin/true", timeout=60) == "it said \ufffd"
        ends[:] = [{"exited": True, "exitcode": 0}]
        assert connection.run("/bin/true", timeout=60) == ""
        for end in ({"exitcode": 7}, {"signal": 9}):
            ends[:] = [{"exited": True, "err-data": said, **end}]
            with pytest.raises(DriverFailed, match="/bin/true failed in the guest: it said"):
                connection.run("/bin/true", timeout=60)
        ends[:] = [{"exited": False}]
        with pytest.raises(DriverFailed, match="didn't end in the guest"):
            connection.run("/bin/sleep", timeout=0.05)
    assert server.asked[1] == {"execute": "guest-exec", "arguments": {"path": "/bin/true", "capture-output": True}}


def test_the_guests_clock_is_set_to_ours(path: Path, guest: Server) -> None:
    with GuestAgent(path) as connection:
        connection.set_time()
    assert abs(guest.asked[-1]["arguments"]["time"] - time.time_ns()) < 300e9
