"""Everything that is decided before a run: hosts, what their network needs, variables, commands."""
