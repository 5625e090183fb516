"""Certificates: one authority and one client per store, a server per machine, and what else this host trusts."""
