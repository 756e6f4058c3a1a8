"""What a run writes for people: console lines, JSON lines, TensorBoard events and one HTML page."""

from kogpt2_gluon.tracking.metrics import NullTracker, Tracker, read_metrics, tracker_for, write_environment

__all__ = ["NullTracker", "Tracker", "read_metrics", "tracker_for", "write_environment"]
