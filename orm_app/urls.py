"""Mounted by the site at /api/v1/database/."""

from __future__ import annotations

from django.urls import path

from .api import backups, health, locks, migrations, slow, standing

app_name = "database"
urlpatterns = [
    path("status", standing.StatusView.as_view(), name="status"),
    path("health", health.HealthView.as_view(), name="health"),
    path("pools", standing.PoolsView.as_view(), name="pools"),
    path("replicas", standing.ReplicasView.as_view(), name="replicas"),
    path("locks", locks.LocksView.as_view(), name="locks"),
    path("locks/cancel", locks.CancelView.as_view(), name="locks-cancel"),
    path("locks/end", locks.EndView.as_view(), name="locks-end"),
    path("slow", slow.SlowView.as_view(), name="slow"),
    path("slow/clear", slow.ClearView.as_view(), name="slow-clear"),
    path("migrations", migrations.MigrationsView.as_view(), name="migrations"),
    path("backups", backups.BackupsView.as_view(), name="backups"),
    path("backups/take", backups.TakeView.as_view(), name="backups-take"),
    path("backups/verify", backups.VerifyView.as_view(), name="backups-verify"),
]
