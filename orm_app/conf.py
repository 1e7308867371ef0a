"""BRAIN["DATABASE"]: defaults and units. Read `conf()` where a value is used, never at import time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from foundation.conf import Bound, setting


@dataclass(frozen=True, slots=True)
class DatabaseConf:
    TRANSACTION_RETRIES: int = setting(0, low=0, high=10)  # of `db.transaction`, on deadlock or busy
    PROCESSES: int = setting(
        1, low=1, high=10_000
    )  # that use the databases at once: web, edge and workers together
    # App label → alias of the database that holds its tables; the others stay on "default".
    APPS: Mapping[str, str] = setting(MappingProxyType({}))
    MIGRATE_WAIT_S: float = setting(600.0, low=0)  # for another migrate that is running
    MIGRATE_LOCK_TIMEOUT_S: float = setting(
        10.0, low=0
    )  # of one statement, for a table's lock; 0: the server's
    MIGRATE_STATEMENT_TIMEOUT_S: float = setting(0.0, low=0)  # of one statement's run; 0: the server's
    MIGRATE_LOCK_RETRIES: int = setting(5, low=0, high=100)  # after a lock timeout or a deadlock
    # What a finding of the lint does before migrate; None: "refuse" in production (errors only), "warn" elsewhere.
    MIGRATE_LINT: str | None = setting(None, choices=(None, "off", "warn", "refuse"))
    # Apps whose migrations are warned about and never refused: the platform's own are looked at before a release.
    MIGRATE_LINT_WARN_ONLY: tuple[str, ...] = setting(
        ("foundation", "orm_app", "cache_app", "queue_app", "gateway")
    )


conf = Bound("DATABASE", DatabaseConf)
