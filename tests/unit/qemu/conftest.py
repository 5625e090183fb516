from fake_qemu import detached, home, links, qemu, recorder, running

__all__ = ["detached", "home", "links", "qemu", "recorder", "running"]
