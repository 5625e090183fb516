"""VirtualBox, through VBoxManage."""

from .driver import VirtualBox
from .existing import Adopted

__all__ = ["Adopted", "VirtualBox"]
