from fake_fixtures import begin, vms
from ordinary_user import ordinary, user_home
from real_sshd import reachable, sshd

__all__ = ["begin", "ordinary", "reachable", "sshd", "user_home", "vms"]
