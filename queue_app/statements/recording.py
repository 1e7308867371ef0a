"""What the recorder reads and writes, in each database's own words: the rows of broker jobs, many at once.

Ids are texts with dashes; times are seconds since 1970. All in the caller's transaction, which holds the recorder's lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, Protocol

from queue_app.broker.events import UNKNOWN, Row, Standing, Step

from . import UNSET as _UNSET

ABOUT = (
    "name",
    "queue",
    "tenant",
    "priority",
    "payload",
    "request_id",
    "max_attempts",
    "parent",
    "expires_at",
)
PROGRESS = (
    "state", "attempt", "crash_count", "owner", "started_at", "finished_at", "run_after", "result", "last_error",
)  # fmt: skip
INSERTED = ("id", *ABOUT, "created_at", *PROGRESS)
# Columns of a new row that the events say nothing about.
UNSET = {"delivery": "'broker'", **{name: value for name, value in _UNSET.items() if name not in INSERTED}}
UPDATED = ("id", *PROGRESS)
NAMED = ("id", *ABOUT, "created_at")  # of a row that had been made without its publication
TOLD = ("job_id", "state", "at", "worker", "detail")


class Recording(Protocol):
    """What each of the modules offers."""

    def standing(self, cursor: Any, ids: Sequence[str]) -> dict[str, Standing | None]:
        """What the rows say, locked; None for a job that is the ledger's. Unknown ids are left out."""

    def insert(self, cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
        """New rows, each with INSERTED's values."""

    def update(self, cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
        """Rows with UPDATED's values; a result or an error that is None keeps what the row has."""

    def name(self, cursor: Any, rows: Sequence[Sequence[Any]]) -> None:
        """Rows with NAMED's values; created_at of None keeps what the row has."""

    def tell(self, cursor: Any, steps: Sequence[Step]) -> None:
        """Their history."""


def of(vendor: str) -> Recording:
    """The module for Django's `connection.vendor`."""
    module: Any = import_module(f".recording_{vendor}", __package__)
    return module


def standing_of(delivery: str, name: str, *columns: Any) -> Standing | None:
    """columns: state to started_at, in Standing's order."""
    return Standing._make((*columns, name != UNKNOWN.name)) if delivery == "broker" else None


def dashed(id: str) -> str:
    """A UUID as the events spell it, of 32 hex digits or of what has its dashes already."""
    return id if "-" in id else f"{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:]}"


def write(hand: Recording, cursor: Any, rows: Iterable[Row], steps: Sequence[Step]) -> None:
    rows = [row for row in rows if row.is_changed]
    new = [(row.id, *_about(row), row.created_at, *_progress(row)) for row in rows if row.is_new]
    changed = [(row.id, *_progress(row)) for row in rows if not row.is_new]
    named = [(row.id, *_about(row), row.created_at) for row in rows if row.about and not row.is_new]
    for put, values in ((hand.insert, new), (hand.update, changed), (hand.name, named)):
        if values:
            put(cursor, values)
    if steps:
        hand.tell(cursor, steps)


def _about(row: Row) -> tuple[Any, ...]:
    about = row.about or UNKNOWN
    return (
        about.name,
        about.queue,
        about.tenant,
        about.priority,
        about.payload,
        about.request_id,
        about.max_attempts,
        about.parent,
        about.expires_at,
    )


def _progress(row: Row) -> tuple[Any, ...]:
    return (
        row.state,
        row.attempt,
        row.crash_count,
        row.owner,
        row.started_at,
        row.finished_at,
        row.run_after,
        row.result,
        row.error,
    )
