"""A project's machines: machine.yaml, and what becomes of it.

`values` reads YAML with positions, `templates` fills in arguments, `schema` says what a file may hold, `load` makes the
wanted machines of it; `record` is what a machine's folder knows of its project, `changes` is the difference to it.
"""
