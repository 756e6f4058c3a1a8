"""Where a training step's time goes: as a table and as a trace."""
