"""What application code imports: `from orm_app import db` → `with db.transaction():`, `async with db.transaction():`."""

from __future__ import annotations

from .transactions import transaction

__all__ = ["transaction"]
