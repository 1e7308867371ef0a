"""The name that Django looks for: its SQLite backend, with our BEGIN."""

from __future__ import annotations

import random
import sqlite3
import time
from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base, features
from django.utils.functional import cached_property

_SHORTEST_S = 0.0003
_LONGEST_S = 0.008


class DatabaseFeatures(features.DatabaseFeatures):
    @cached_property
    def supports_json_field(self) -> bool:
        """Django asks within a transaction, which takes the write lock here: while somebody wrote for long, a migration
        say, the system checks of every other command waited and then said that SQLite has no JSON."""
        with self.connection.cursor() as cursor:
            try:
                cursor.execute("SELECT JSON('{}')")
            except OperationalError:
                return False
        return True


class DatabaseWrapper(base.DatabaseWrapper):
    """SQLite's own wait sleeps 1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100, 100 … ms, whoever has waited longest
    for the longest (`sqliteDefaultBusyCallback` in its main.c). Two processes that write in transactions of a
    millisecond each spend three quarters of their time in it. Here a waiter asks again after about a millisecond, less
    often when the lock is held for long, and at random, so that nobody is always second.
    """

    features_class = DatabaseFeatures

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        self._timeout_s = float(params.get("timeout", 5.0))  # the driver's default
        return params

    def _start_transaction_under_autocommit(self) -> None:
        if self.transaction_mode != "IMMEDIATE":  # a deferred one takes the lock later
            super()._start_transaction_under_autocommit()
            return
        began = time.monotonic()
        self._let_sqlite_wait(0)
        try:
            while not self._begins(may_raise=time.monotonic() - began >= self._timeout_s):
                waited_s = time.monotonic() - began
                longest_s = min(_SHORTEST_S * 4 + waited_s / 4, _LONGEST_S)
                time.sleep(random.uniform(_SHORTEST_S, longest_s))  # noqa: S311  (spreads, guards nothing)
        finally:
            self._let_sqlite_wait(self._timeout_s)

    def _begins(self, *, may_raise: bool) -> bool:
        try:
            super()._start_transaction_under_autocommit()
        except OperationalError as error:
            if may_raise or not _is_busy(error):
                raise
            return False
        return True

    def _let_sqlite_wait(self, timeout_s: float) -> None:
        """For statements outside of transactions, which take the lock for themselves."""
        self.connection.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")


def _is_busy(error: OperationalError) -> bool:
    code: int = getattr(error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY
