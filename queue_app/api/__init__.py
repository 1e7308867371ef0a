"""The queue's REST API, a module for each noun; urls.py mounts it."""
