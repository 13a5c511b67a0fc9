"""One version of a remote file in memory: which bytes are recorded, held, under way, or missing."""
