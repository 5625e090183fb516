"""Switches among the environment variables."""

from __future__ import annotations

import os

_ON = {"1", "on", "t", "true", "y", "yes"}  # as click reads the variable of an option that is a flag


def is_on(variable: str) -> bool:
    """Whether the variable is set, and to one of these words."""
    return os.environ.get(variable, "").strip().lower() in _ON
