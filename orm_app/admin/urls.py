"""Mounted by the site at /admin/database/, as `database-admin`."""

from __future__ import annotations

from foundation import roles
from foundation.pages import at

from . import backups, health, locks, migrations, overview, pools, slow

app_name = "database-admin"
urlpatterns = [
    at("", overview.page, "overview"),
    at("live/", overview.live, "overview-live"),
    *health.SECTION.paths(),
    *pools.SECTION.paths(),
    *locks.SECTION.paths(),
    at("locks/session/", locks.session, "session", roles.OPERATOR),
    *slow.SECTION.paths(),
    at("slow/query/", slow.entry, "slow-query"),
    at("slow/clear/", slow.clear, "slow-clear", roles.OPERATOR),
    at("slow/explain/", slow.explaining, "explain", roles.ADMIN),
    *migrations.SECTION.paths(),
    *backups.SECTION.paths(),
    at("backups/begin/", backups.begin, "backup-begin", roles.ADMIN),
    at("backups/file/", backups.entry, "backup"),
]
