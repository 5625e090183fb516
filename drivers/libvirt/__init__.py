"""libvirt: machines of the system's libvirtd, of a user's own one, or of another host's."""

from .driver import Libvirt

__all__ = ["Libvirt"]
