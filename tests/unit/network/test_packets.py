"""What a switch answers itself, byte by byte."""

import socket
import struct

import pytest

from machine.network import packets

GUEST_MAC, GUEST = bytes.fromhex("52544d123456"), socket.inet_aton("10.77.5.2")
SERVER = socket.inet_aton("10.77.5.1")
BROADCAST = b"\xff" * 6


def find(name: str) -> str | None:
    return {"web": "10.77.5.3", "web.machine.internal": "10.77.5.3"}.get(name)


def arp(target: bytes = SERVER) -> bytes:
    return BROADCAST + GUEST_MAC + b"\x08\x06" + _arp_body(target)


def _arp_body(target: bytes) -> bytes:
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + GUEST_MAC + GUEST + b"\0" * 6 + target


def ip(protocol: int, data: bytes, target: bytes = SERVER, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 7, fragment, 64, protocol, 0) + GUEST + target
    return packets.MAC + GUEST_MAC + b"\x08\x00" + head + data


def query(name: str, kind: int = 1, flags: int = 0x0100, family: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 0x1234, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, family)


def udp(message: bytes, port: int = 53) -> bytes:
    return ip(17, struct.pack("!4H", 5353, port, 8 + len(message), 0) + message)


def sums_up(data: bytes) -> bool:
    """Whether the checksum in it is right (RFC 1071): the sum of all is then all ones."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return bool(total == 0xFFFF)


def test_who_asks_for_the_servers_hardware_address_is_told() -> None:
    answer = packets.answer(arp(), SERVER, find)
    assert answer is not None
    assert answer[:14] == GUEST_MAC + packets.MAC + b"\x08\x06"
    assert answer[14:22] == struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    assert answer[22:] == packets.MAC + SERVER + GUEST_MAC + GUEST


def test_a_ping_comes_back() -> None:
    echo = b"\x08\0\xf7\xfe\0\1\0\0"
    answer = packets.answer(ip(1, echo), SERVER, find)
    assert answer is not None
    head, reply = answer[14:34], answer[34:]
    assert (head[12:16], head[16:20]) == (SERVER, GUEST)
    assert sums_up(head)
    assert reply[:2] == b"\0\0"
    assert sums_up(reply)


@pytest.mark.parametrize("name", ["web", "web.machine.internal"])
@pytest.mark.parametrize("kind", [1, 255])
def test_a_machines_name_has_its_address(name: str, kind: int) -> None:
    answer = packets.answer(udp(query(name, kind)), SERVER, find)
    assert answer is not None
    assert answer[34:42] == struct.pack("!4H", 53, 5353, len(answer) - 34, 0)
    message = answer[42:]
    assert message[:12] == struct.pack("!6H", 0x1234, 0x8500, 1, 1, 0, 0)
    assert message[12:].startswith(query(name, kind)[12:])
    assert message.endswith(struct.pack("!HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton("10.77.5.3"))


def test_it_has_no_address_of_another_kind() -> None:
    """An empty answer, not "no such name": else a client would give the name up for all types."""
    asked = query("web", 28)
    assert packets.dns(asked, find) == struct.pack("!6H", 0x1234, 0x8500, 1, 0, 0, 0) + asked[12:]


def test_an_unknown_name() -> None:
    asked = query("db")
    assert packets.dns(asked, find) == struct.pack("!6H", 0x1234, 0x8503, 1, 0, 0, 0) + asked[12:]


@pytest.mark.parametrize(
    "message",
    [query("web", flags=0x2800), query("web", family=3), query("web")[:-1], struct.pack("!6H", 1, 0, 2, 0, 0, 0)],
)
def test_what_it_doesnt_understand_it_says_so(message: bytes) -> None:
    answer = packets.dns(message, find)
    assert answer is not None
    assert (answer[:2], answer[3] & 15, answer[4:]) == (message[:2], 4, b"\0" * 8)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        arp()[:13],
        arp()[:41],
        arp(GUEST),
        ip(17, b"", target=GUEST),
        ip(17, b"12345"),
        ip(6, b"\0" * 20),
        ip(1, b"\0" * 8),
        ip(17, b"\0" * 20, fragment=0x2000),
        udp(query("web"), port=54),
        udp(query("web", flags=0x8100)),
        udp(b"short"),
        ip(17, b"\0" * 20)[:30],
        BROADCAST + GUEST_MAC + b"\x86\xdd" + b"\0" * 40,
    ],
)
def test_what_is_not_for_it_has_no_answer(frame: bytes) -> None:
    assert packets.answer(frame, SERVER, find) is None
