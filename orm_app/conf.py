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
    REPLICA_MAX_LAG_S: float = setting(5.0, low=0.1)  # a replica further behind gets no reads
    REPLICA_PROBE_S: float = setting(1.0, low=0.02, high=60)  # between two looks at each server, per process
    READ_YOUR_WRITES_S: float = setting(
        10.0, low=0, high=3600
    )  # how long a client's writes are remembered; 0: not at all
    # Who answers reads while the primary does not: the replicas, however old they get, or nobody.
    ON_PRIMARY_DOWN: str = setting("replicas", choices=("replicas", "primary"))
    # Apps whose reads stay on the primary: the platform's own decide by what they read, and who may do what is old at once.
    READ_FROM_PRIMARY: tuple[str, ...] = setting(
        ("foundation", "gateway", "cache_app", "queue_app", "orm_app", "auth", "sessions")
    )
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
    SLOW_QUERY_MS: float | None = setting(
        200.0, low=0
    )  # logged and kept from here on; 0: everything, None: nothing
    # Of the same statement from the same line in one request, job or command; None: nobody counts.
    N_PLUS_ONE: int | None = setting(10, low=2, high=100_000)
    SLOW_FLUSH_S: float = setting(5.0, low=0.1, high=3600)  # between two times that findings are stored
    SLOW_KEEP: int = setting(1000, low=10, high=100_000)  # rows of slow and of repeated statements
    SLOW_RETENTION_DAYS: float = setting(30.0, low=0.01)  # since a row was last seen
    # Packages whose lines are a statement's call site only where no other's are.
    CALL_SITE_SKIPS: tuple[str, ...] = setting(
        ("foundation", "brain_project", "cache_app", "queue_app", "gateway")
    )
    BACKUP_DIR: str = setting("")  # where backups are kept (0700); the site's is below its data directory
    BACKUP_KEEP: int = setting(0, low=0)  # of each database, the newest; 0: all


conf = Bound("DATABASE", DatabaseConf)
