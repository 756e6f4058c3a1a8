"""`kogpt2 serve`: text from a checkpoint over HTTP."""
