"""make bench: how long things take, and what they take, each beside its floor or beside another tool."""
