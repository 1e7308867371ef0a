"""Mounted by the site at /admin/database/, as `database-admin`."""

from __future__ import annotations

from . import migrations, overview, pools
from .frame import at

app_name = "database-admin"
urlpatterns = [
    at("", overview.page, "overview"),
    at("live/", overview.live, "overview-live"),
    *pools.SECTION.paths(),
    *migrations.SECTION.paths(),
]
