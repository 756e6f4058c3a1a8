"""From raw text to a corpus: sources, document formats, cleaning, the corpus folder."""
