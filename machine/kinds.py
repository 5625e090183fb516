"""What a machine can be to us, and what follows from that. Drivers say which kind theirs are."""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    VM = "a virtual machine that we make"
    CONTAINER = "a system container that we make"
    EXISTING_VM = "a virtual machine that somebody else made, with its Docker"
    HOST = "a host that SSH reaches"
    URL = "the URL of a Docker daemon"

    @property
    def noun(self) -> str:
        """What we make and start, in words: of a kind that is ours."""
        return "system container" if self is Kind.CONTAINER else "virtual machine"

    @property
    def keeps_memory(self) -> bool:
        """Whether what `suspend` saves is kept when the host restarts."""
        return self is not Kind.CONTAINER

    @property
    def is_ours(self) -> bool:
        """Whether we make it: it boots an image, reads a seed, takes sizes, and is removed with all that is on it."""
        return self in {Kind.VM, Kind.CONTAINER}

    @property
    def has_ssh(self) -> bool:
        """Whether SSH reaches it, with a key of ours."""
        return self is not Kind.URL

    @property
    def is_provisioned(self) -> bool:
        """Whether we set Docker up on it and make its certificates."""
        return self in {Kind.VM, Kind.CONTAINER, Kind.HOST}
