"""The gateway as an S3 service: reading only, path style."""
