"""The database layer against plain Django, on servers of its own."""
