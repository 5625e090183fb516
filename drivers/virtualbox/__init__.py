"""VirtualBox, through VBoxManage."""

from .driver import VirtualBox

__all__ = ["VirtualBox"]
