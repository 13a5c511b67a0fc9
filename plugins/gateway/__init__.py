"""The HTTP gateway, `jcache serve`: files of any origin, read through the journals, for clients of HTTP/1.1."""
