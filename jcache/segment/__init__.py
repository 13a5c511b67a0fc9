"""One file of a journal: its bytes, how they are written, read, checked and copied."""
