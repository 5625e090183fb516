"""docker-machine's store, taken over; and its form of `inspect`."""
