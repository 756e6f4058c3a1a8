"""Text that is tokenized while it is read, as the original did it."""
