"""The Docker daemon of a machine: its API, its settings, its published ports, the client's contexts."""
