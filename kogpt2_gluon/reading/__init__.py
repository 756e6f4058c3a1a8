"""What training reads, and in which order."""
