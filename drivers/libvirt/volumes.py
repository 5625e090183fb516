"""A storage pool and the volumes in it: everything that a machine needs as a file lies there.

So a hypervisor on another host needs nothing but the connection. What several machines share (the system's image,
kernel and initrd) is named by its digest and uploaded once; an empty volume beside it says that it is complete.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from machine.errors import DriverFailed
from machine.render import render

from .connection import Connection, explained, find

if TYPE_CHECKING:
    import libvirt

BLOCK = 1 << 20
# How long to wait for somebody else who uploads the same image, in seconds.
PATIENCE = 600.0
SYSTEM_FOLDER = "/var/lib/libvirt/images"


class Pool:
    """The pool of that name; `ready` makes and starts it."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name

    def find(self) -> libvirt.virStoragePool | None:
        what = f"can't look up the storage pools on {self.connection.uri}"
        return find(what, lambda: self.connection.raw.storagePoolLookupByName(self.name), "NO_STORAGE_POOL")

    def active(self) -> libvirt.virStoragePool | None:
        """The pool, started when it was not; None when there is none."""
        pool = self.find()
        if pool is not None:
            with explained(f"the storage pool {self.name} can't be started"):
                if not pool.isActive():
                    pool.create()
                pool.refresh()
        return pool

    def ready(self) -> libvirt.virStoragePool:
        """The pool, made in libvirt's own folder for images when there is none."""
        if (pool := self.active()) is not None:
            return pool
        xml = render("libvirt/pool.xml.j2", name=self.name, path=f"{self._folder()}/{self.name}")
        with explained(f"the storage pool {self.name} can't be made", hint="use an existing one: --libvirt-pool NAME"):
            try:
                pool = self.connection.raw.storagePoolDefineXML(xml)
                pool.build()
                pool.create()
                pool.setAutostart(1)
            except BaseException:
                if pool is not None:
                    pool.undefine()
                raise
        return pool

    def free_mib(self) -> int | None:
        """None while that isn't known: there is no such pool yet, or it isn't active."""
        pool = self.find()
        with explained(f"can't read the size of the storage pool {self.name}"):
            return int(pool.info()[3]) >> 20 if pool is not None and pool.isActive() else None

    def volume(self, name: str) -> libvirt.virStorageVol | None:
        if (pool := self.find()) is None:
            return None
        what = f"can't look up the volumes of the storage pool {self.name}"
        return find(what, lambda: pool.storageVolLookupByName(name), "NO_STORAGE_VOL", "OPERATION_INVALID")

    def make(self, name: str, *, size: int, format: str = "raw") -> libvirt.virStorageVol:
        """A new volume of size bytes; one that is there already stays as it is."""
        if (volume := self.volume(name)) is not None:
            return volume
        xml = render("libvirt/volume.xml.j2", name=name, size=size, format=format)
        with explained(f"the volume {name} can't be made in the storage pool {self.name}"):
            return self.ready().createXML(xml)

    def delete(self, *names: str) -> None:
        for name in names:
            if (volume := self.volume(name)) is not None:
                with explained(f"the volume {name} can't be removed from the storage pool {self.name}"):
                    volume.delete()

    def replace(self, name: str, content: Path) -> libvirt.virStorageVol:
        """The volume of that name with the content of a file, whatever it held before."""
        self.delete(name)
        volume = self.make(name, size=content.stat().st_size)
        self._upload(volume, content, lambda percent: None)
        return volume

    def shared(self, name: str, content: Path, advance: Callable[[str], None]) -> libvirt.virStorageVol:
        """The volume of what several machines use, uploaded when it isn't there whole; name tells its content."""
        complete = f"{name}.complete"
        deadline = time.monotonic() + PATIENCE
        while self.volume(complete) is None:
            with contextlib.suppress(DriverFailed):  # somebody is uploading it: then it can't be removed
                self.delete(name)
            if self.volume(name) is not None and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            volume = self.make(name, size=content.stat().st_size)
            self._upload(volume, content, lambda percent: advance(f"uploading the image: {percent} %"))
            self.make(complete, size=0)
        volume = self.volume(name)
        if volume is None:
            self.delete(complete)
            raise DriverFailed(f"the volume {name} was removed from the storage pool {self.name}", hint="try it again")
        return volume

    def _upload(self, volume: libvirt.virStorageVol, content: Path, progress: Callable[[int], None]) -> None:
        size, sent, shown = content.stat().st_size, 0, -1
        with (
            explained(f"{volume.name()} can't be uploaded to the storage pool {self.name}"),
            content.open("rb") as file,
        ):
            stream = self.connection.raw.newStream()
            try:
                volume.upload(stream, 0, size)
                while block := file.read(BLOCK):
                    _send(stream, block)
                    sent += len(block)
                    if (percent := sent * 100 // size) != shown:
                        progress(shown := percent)
                stream.finish()
            except BaseException:
                with contextlib.suppress(Exception):
                    stream.abort()
                with contextlib.suppress(Exception):
                    volume.delete()
                raise

    def _folder(self) -> str:
        if not self.connection.uri.is_session:
            return SYSTEM_FOLDER
        import platformdirs

        return f"{platformdirs.user_data_dir('libvirt')}/images"


def _send(stream: libvirt.virStream, block: bytes) -> None:
    while block:
        block = block[stream.send(block) :]
