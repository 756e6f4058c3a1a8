"""Tokenizers: their training, their use, and reports on them."""
