"""The MOUNT protocol, version 3 (RFC 1813, appendix I), on the same connection as NFS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from machine.folders import rpc, xdr
from machine.folders.export import Export
from machine.folders.rpc import Call, Program

PROGRAM, VERSION = 100005, 3
NULL, MNT, DUMP, UMNT, UMNTALL, EXPORT = range(6)
OK, ERR_NOENT, ERR_ACCES = 0, 2, 13
_PATH_LIMIT = 1024


def program(
    exports: Mapping[bytes, Export],
    handle: Callable[[Export], bytes],
    admit: Callable[[bytes], bytes | None] = lambda path: path,
) -> Program:
    """exports: by the path that the guest mounts them at; handle: what makes a handle of an export's top folder.

    admit: makes such a path of what was called for; None refuses it.
    """

    def mount(call: Call) -> bytes:
        if (path := admit(call.arguments.opaque(_PATH_LIMIT))) is None:
            return xdr.u32(ERR_ACCES)
        if (export := exports.get(path)) is None:
            return xdr.u32(ERR_NOENT)
        return xdr.u32(OK) + xdr.opaque(handle(export)) + xdr.u32(1) + xdr.u32(rpc.AUTH_SYS)

    def unmount(call: Call) -> bytes:
        call.arguments.opaque(_PATH_LIMIT)
        return b""

    def listing(call: Call) -> bytes:
        """Each with an empty list of groups."""
        return b"".join(xdr.flag(True) + xdr.opaque(path) + xdr.flag(False) for path in exports) + xdr.flag(False)

    return Program(
        PROGRAM,
        VERSION,
        {
            NULL: lambda call: b"",
            MNT: mount,
            # Who has mounted what isn't noted: there is one guest.
            DUMP: lambda call: xdr.flag(False),
            UMNT: unmount,
            UMNTALL: lambda call: b"",
            EXPORT: listing,
        },
    )
