"""The frames that a switch answers itself: ARP, ping, and queries for names to its own address.

Ethernet, ARP (RFC 826), IPv4 (791), ICMP (792), UDP (768), DNS (1035). Whatever isn't one of these, or is broken, has
no answer.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

MAC = bytes.fromhex("52544d000001")
_ARP, _IP = 0x0806, 0x0800
_ICMP, _UDP = 1, 17
_DNS_PORT = 53
_A, _ANY, _IN = 1, 255, 1
_NO_SUCH_NAME, _NOT_IMPLEMENTED = 3, 4
# Seconds that a client may remember an address: a name can go to another machine.
_TTL = 5
_LONGEST_LABEL = 63


def answer(frame: bytes, address: bytes, find: Callable[[str], str | None]) -> bytes | None:
    """The frame that answers one to the switch's address (4 bytes). find: a machine's address by its name."""
    if len(frame) < 14:
        return None
    source, (kind,) = frame[6:12], struct.unpack_from("!H", frame, 12)
    body = frame[14:]
    if kind == _ARP:
        reply = _arp(body, address)
    elif kind == _IP:
        reply = _ip(body, address, find)
    else:
        reply = None
    return None if reply is None else source + MAC + frame[12:14] + reply


def _arp(body: bytes, address: bytes) -> bytes | None:
    """Who has our address? We have."""
    request = struct.pack("!HHBBH", 1, _IP, 6, 4, 1)
    if len(body) < 28 or body[:8] != request or body[24:28] != address:
        return None
    return request[:7] + b"\2" + MAC + address + body[8:18]


def _ip(body: bytes, address: bytes, find: Callable[[str], str | None]) -> bytes | None:
    if len(body) < 20 or body[0] >> 4 != 4 or body[16:20] != address:
        return None
    start, (end,) = (body[0] & 15) * 4, struct.unpack_from("!H", body, 2)
    # No fragments: the more-flag, or an offset.
    if start < 20 or end < start or struct.unpack_from("!H", body, 6)[0] & 0x3FFF:
        return None
    data = body[start:end]
    reply = _icmp(data) if body[9] == _ICMP else _udp(data, find) if body[9] == _UDP else None
    return None if reply is None else _packet(body[9], address, body[12:16], reply)


def _packet(protocol: int, source: bytes, target: bytes, data: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0x4000, 64, protocol, 0) + source + target
    return head[:10] + _checksum(head) + head[12:] + data


def _checksum(data: bytes) -> bytes:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", total ^ 0xFFFF)


def _icmp(data: bytes) -> bytes | None:
    if len(data) < 8 or data[:2] != b"\x08\0":
        return None
    reply = b"\0\0\0\0" + data[4:]
    return reply[:2] + _checksum(reply) + reply[4:]


def _udp(data: bytes, find: Callable[[str], str | None]) -> bytes | None:
    if len(data) < 8:
        return None
    source, target, _, _ = struct.unpack_from("!4H", data)
    if target != _DNS_PORT or (reply := dns(data[8:], find)) is None:
        return None
    # A checksum of 0 means none, which IPv4 allows.
    return struct.pack("!4H", target, source, 8 + len(reply), 0) + reply


def dns(message: bytes, find: Callable[[str], str | None]) -> bytes | None:
    """The answer to a query for a name; None for what isn't a query."""
    if len(message) < 12 or message[2] & 0x80:
        return None
    number, flags, questions = struct.unpack_from("!3H", message)
    head = 0x8400 | flags & 0x7900  # an authoritative answer; the same operation, recursion desired or not
    question = _question(message)
    if flags & 0x7800 or questions != 1 or question is None:
        return struct.pack("!6H", number, head | _NOT_IMPLEMENTED, 0, 0, 0, 0)
    name, kind, raw = question
    if (address := find(name)) is None:
        return struct.pack("!6H", number, head | _NO_SUCH_NAME, 1, 0, 0, 0) + raw
    if kind not in {_A, _ANY}:
        return struct.pack("!6H", number, head, 1, 0, 0, 0) + raw
    record = struct.pack("!HHHIH", 0xC00C, _A, _IN, _TTL, 4) + socket.inet_aton(address)
    return struct.pack("!6H", number, head, 1, 1, 0, 0) + raw + record


def _question(message: bytes) -> tuple[str, int, bytes] | None:
    """The name, the type, and the bytes of the first question; None if it is broken, or not of the Internet."""
    at, labels = 12, []
    while at < len(message) and (length := message[at]):
        if length > _LONGEST_LABEL:
            return None
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5
    if not labels or len(message) < end:
        return None
    kind, family = struct.unpack_from("!HH", message, at + 1)
    if family != _IN:
        return None
    return b".".join(labels).decode("ascii", "replace"), kind, message[12:end]
