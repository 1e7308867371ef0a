"""What application code imports: `from orm_app import db` → `db.query(User)`, `db.raw(…)`, `db.transaction()`."""

from __future__ import annotations

from .keyset import BadCursor, Page
from .query import Query, query
from .raw import UnsafeSQL, execute, raw
from .router import primary, replica
from .transaction_blocks import on_commit
from .transaction_bounds import TransactionTimeout
from .transactions import run_in_transaction, transaction

__all__ = [
    "BadCursor",
    "Page",
    "Query",
    "TransactionTimeout",
    "UnsafeSQL",
    "execute",
    "on_commit",
    "primary",
    "query",
    "raw",
    "replica",
    "run_in_transaction",
    "transaction",
]
