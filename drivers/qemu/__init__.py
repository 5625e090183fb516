"""QEMU, started by us: no root, no daemon."""

from .driver import Qemu

__all__ = ["Qemu"]
