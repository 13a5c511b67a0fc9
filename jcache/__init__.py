"""JCache: a read cache for remote data that records exactly the byte ranges a job asked for."""

__version__ = "0.1.0"
