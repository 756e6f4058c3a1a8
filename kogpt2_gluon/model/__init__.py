"""The network, its loss, and how a token at a time is decoded."""
