"""Copies of chunks on a node's own disk, shared by its workers."""
