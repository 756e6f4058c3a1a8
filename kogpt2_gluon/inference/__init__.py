"""A checkpoint in use: scores on held-out text, and text that continues a prompt."""
