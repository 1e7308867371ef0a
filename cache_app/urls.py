"""Mounted by the site at /api/v1/cache/."""

from __future__ import annotations

from django.urls import path

from .api import StatusView

app_name = "cache"
urlpatterns = [path("status", StatusView.as_view(), name="status")]
