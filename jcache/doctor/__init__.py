"""Whether a directory is fit to be a cache: tried out, not looked up."""
