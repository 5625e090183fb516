from fake_lxc import api, lxc, recorder

__all__ = ["api", "lxc", "recorder"]
