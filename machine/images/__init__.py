"""What machines boot: the cache of images, where they come from, and the formats of disks."""
