"""Mounted by the site at /api/v1/cache/. Keys may hold slashes, so they come last."""

from __future__ import annotations

from django.urls import path

from .api import ending, keys, stats

app_name = "cache"
urlpatterns = [
    path("status", stats.StatusView.as_view(), name="status"),
    path("stats", stats.StatisticsView.as_view(), name="stats"),
    path("stats/reset", stats.ResetView.as_view(), name="stats-reset"),
    path("slow", stats.SlowView.as_view(), name="slow"),
    path("delete", keys.DeleteView.as_view(), name="delete"),
    path("tags/invalidate", ending.TagsView.as_view(), name="tags-invalidate"),
    path("namespaces/invalidate", ending.NamespacesView.as_view(), name="namespaces-invalidate"),
    path("clear", ending.ClearView.as_view(), name="clear"),
    path("keys", keys.KeysView.as_view(), name="keys"),
    path("keys/<path:key>", keys.KeyView.as_view(), name="key"),
]
