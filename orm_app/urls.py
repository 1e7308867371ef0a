"""Mounted by the site at /api/v1/database/."""

from __future__ import annotations

from django.urls import path

from .api import migrations, standing

app_name = "database"
urlpatterns = [
    path("status", standing.StatusView.as_view(), name="status"),
    path("pools", standing.PoolsView.as_view(), name="pools"),
    path("migrations", migrations.MigrationsView.as_view(), name="migrations"),
]
