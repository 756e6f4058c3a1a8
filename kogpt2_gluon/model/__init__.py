"""The network, its loss, and its parameter files."""
