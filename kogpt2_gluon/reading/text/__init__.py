"""Text that is tokenized while it is read, as in the original training."""
