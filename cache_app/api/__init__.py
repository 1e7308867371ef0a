"""/api/v1/cache/: statistics, keys, invalidation. Viewers look, operators see values and delete, admins clear."""
