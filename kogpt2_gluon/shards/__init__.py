"""Token shards on disk: written, read, verified, repaired."""
