"""The demo's own Korean sentences."""
