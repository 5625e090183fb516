"""machine: a Docker host from one command."""

__version__ = "0.1.0"
