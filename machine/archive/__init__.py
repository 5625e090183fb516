"""A machine in one file: written, and made again from what a stranger may have sent."""
