from fake_fixtures import begin, dev, vms
from ordinary_user import ordinary, user_home
from real_sshd import reachable, sshd

__all__ = ["begin", "dev", "ordinary", "reachable", "sshd", "user_home", "vms"]
