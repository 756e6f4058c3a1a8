"""From text to token ids: the tokenizer, and sharding."""
