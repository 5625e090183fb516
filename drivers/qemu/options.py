"""The settings of machines that QEMU runs."""

from __future__ import annotations

from dataclasses import dataclass, field

ACCELERATORS = ("auto", "kvm", "hvf", "whpx", "tcg")


@dataclass(frozen=True)
class Options:
    accelerator: str = field(
        default="auto",
        metadata={
            "help": "kvm, hvf, whpx or tcg; auto tries which works.",
            "metavar": "NAME",
            "envvar": "QEMU_ACCELERATOR",
        },
    )
    cold: bool = field(
        default=False, metadata={"flag": "--cold", "help": "Boot, instead of cloning a machine that is booted already."}
    )
