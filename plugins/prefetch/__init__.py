"""Fetching ahead what a job is going to read, as an earlier run of it tells."""
