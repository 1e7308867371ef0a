"""A small JSON API of tasks that stands behind the gateway and uses the platform's queue, cache and database."""
