"""Chunks of shards kept on a node's own disk, shared by its workers."""
