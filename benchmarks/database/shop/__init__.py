"""A Django app with one table, for every side alike."""
