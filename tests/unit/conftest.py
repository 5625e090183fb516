from fake_fixtures import vms
from real_sshd import reachable, sshd

__all__ = ["reachable", "sshd", "vms"]
