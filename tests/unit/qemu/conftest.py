from fake_qemu import detached, folder, links, qemu, recorder, running
from fake_template import larger, origin, said

__all__ = ["detached", "folder", "larger", "links", "origin", "qemu", "recorder", "running", "said"]
