"""What users set: read, checked, and held against single remote files."""
