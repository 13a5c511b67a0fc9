"""Requests that were recorded, sent again: to fill a cache, or to see how an origin takes them."""
