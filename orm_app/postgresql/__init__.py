"""Django's PostgreSQL backend with psycopg's pool, which finds back to a server that was away."""
