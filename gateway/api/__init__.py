"""The gateway's REST API, a module for each noun; urls.py mounts it at /api/v1/gateway/."""
