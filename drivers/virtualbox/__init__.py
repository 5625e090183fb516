"""VirtualBox, through VBoxManage."""

from .adopted import Adopted
from .driver import VirtualBox

__all__ = ["Adopted", "VirtualBox"]
