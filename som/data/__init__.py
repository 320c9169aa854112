"""Data sets: what they contain (``dataset``), how each on-disk format is read, and the built-in demo."""
