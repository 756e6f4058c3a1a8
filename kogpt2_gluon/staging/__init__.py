"""Bringing data to where it is read: the verbs of `kogpt2 files`."""
