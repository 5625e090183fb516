"""Machines among themselves: networks with names, carried by one switch process each. No root, no open port."""
