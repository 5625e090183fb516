from fake_fixtures import vms

__all__ = ["vms"]
