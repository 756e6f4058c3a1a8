"""What a run leaves on disk: checkpoints, metrics, the environment it ran in, and a report page."""
