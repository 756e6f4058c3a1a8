"""Text: sources, formats, cleaning, the corpus on disk."""
