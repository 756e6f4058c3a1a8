"""Token shards on disk: made, read, cached, verified, repaired."""
