"""BRAIN["DATABASE"]: defaults and units. Read `conf()` where a value is used, never at import time."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.conf import Bound, setting


@dataclass(frozen=True, slots=True)
class DatabaseConf:
    TRANSACTION_RETRIES: int = setting(0, low=0, high=10)  # of `db.transaction`, on deadlock or busy


conf = Bound("DATABASE", DatabaseConf)
