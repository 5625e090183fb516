"""How long a connection may take, and be silent; the same for OpenSSH and paramiko."""

# Seconds.
CONNECT_TIMEOUT = 10
# Seconds between two questions to a silent server, and until the connection counts as dead.
ALIVE_INTERVAL = 15
ALIVE_TIMEOUT = 45
# ssh's own exit code for "no connection"; a command that ends with 255 can't be told from it.
NO_CONNECTION = 255
