"""The origins of fsspec's file systems: how each protocol is read, and how what was read is proved."""
