"""Inside a machine: its seed and keys, setting Docker up on its system, what its console tells."""
