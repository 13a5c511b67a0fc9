"""Behind the reader: threads that touch the cache directory, and what waits to be recorded."""
