"""Peers: each folder holds what one of them needs (pinned), its two handlers and its producer."""
