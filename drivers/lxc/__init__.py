"""System containers of this host, made with LXC and machineos' root file system: no virtual machine."""

from .driver import Lxc

__all__ = ["Lxc"]
