"""VirtualBox, through VBoxManage."""

from .driver import VirtualBox
from .existing import ExistingVM

__all__ = ["ExistingVM", "VirtualBox"]
