"""The cache's admin pages. They stand on no model: a cache has no rows. Every change goes through operations.py."""
