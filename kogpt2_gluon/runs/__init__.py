"""The files that a run leaves: checkpoints, metrics, the environment it ran in, and a report page."""
