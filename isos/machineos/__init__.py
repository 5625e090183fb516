"""machineos: the small guest that comes with machine, made from Debian packages."""
