"""A cache directory: which journal belongs to which remote file, and where it lies."""
