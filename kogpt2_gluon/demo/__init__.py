"""The demo: the whole road from text to a PyTorch folder, on the package's own sentences."""
