"""Several machines as one Docker: a swarm, whose managers and workers are machines of this store."""
