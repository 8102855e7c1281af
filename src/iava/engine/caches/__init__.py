"""Caches of keys and values: rows in segments, branches in one batch, prefixes of images."""
