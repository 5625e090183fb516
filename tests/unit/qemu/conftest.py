from fake_qemu import detached, home, links, qemu, recorder, running
from fake_template import larger, origin, said

__all__ = ["detached", "home", "larger", "links", "origin", "qemu", "recorder", "running", "said"]
