"""Trained checkpoints in other libraries' formats."""
