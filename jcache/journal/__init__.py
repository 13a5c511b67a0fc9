"""The journal: segments with one writer each, and their merged view."""
