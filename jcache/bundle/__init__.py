"""One file with exactly the bytes of an analysis, and what is needed to run it with them alone."""
