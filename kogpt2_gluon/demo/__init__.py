"""The demo: every stage from text to a PyTorch folder, on the package's own sentences."""
