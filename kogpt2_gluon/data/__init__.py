"""From text to tokens: sources, documents, cleaning, tokenizer, shards, order, reader. Nothing here needs MXNet."""
