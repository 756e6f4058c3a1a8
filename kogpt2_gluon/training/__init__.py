"""Training: the loop, and the parts it is made of."""
