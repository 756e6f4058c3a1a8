"""Token shards on disk: written, read, cached, verified, repaired."""
