"""Mounted by the site at /admin/cache/, as `cache-admin`."""

from __future__ import annotations

from foundation import roles
from foundation.pages import at

from . import ending, keys, memory, statistics

app_name = "cache-admin"
urlpatterns = [
    at("", statistics.page, "statistics"),
    at("live/", statistics.live, "statistics-live"),
    at("reset/", statistics.reset, "reset", roles.OPERATOR),
    at("keys/", keys.page, "keys"),
    at("keys/entry/", keys.entry, "entry"),
    at("keys/delete/", keys.delete, "delete", roles.OPERATOR),
    at("invalidate/", ending.page, "ending"),
    at("memory/", memory.page, "memory"),
    at("slow/", memory.slow_page, "slow"),
    at("slow/live/", memory.slow_live, "slow-live"),
]
