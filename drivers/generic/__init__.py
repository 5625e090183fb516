"""Hosts that are there already."""

from .driver import Generic

__all__ = ["Generic"]
