from fake_qemu import detached, home, qemu, recorder, running

__all__ = ["detached", "home", "qemu", "recorder", "running"]
