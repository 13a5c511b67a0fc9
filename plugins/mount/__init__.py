"""`jcache mount`: a remote tree as a directory that any program reads, through the journals of a cache."""
