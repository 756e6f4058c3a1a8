"""The order in which training reads its data, and the readers that follow it; held-out data for evaluation."""
