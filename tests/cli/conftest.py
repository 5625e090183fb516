from fake_fixtures import begin, vms
from real_sshd import reachable, sshd

__all__ = ["begin", "reachable", "sshd", "vms"]
