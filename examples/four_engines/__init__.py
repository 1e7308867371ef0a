"""One program on SQLite, PostgreSQL, MySQL and MongoDB: `python -m examples.four_engines URL…`."""
