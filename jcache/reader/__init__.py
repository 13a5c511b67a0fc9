"""One open remote file: plan a vector, serve hits, fetch gaps, hand over to record."""
