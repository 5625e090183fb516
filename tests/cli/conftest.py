from fake_fixtures import begin, vms

__all__ = ["begin", "vms"]
