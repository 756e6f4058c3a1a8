"""A run of a plan: attempt after attempt, until it ends."""
