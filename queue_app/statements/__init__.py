"""The three statements of the hot path, in each database's own words: insert, claim and finish, each for many jobs at once.

Every module has the same functions on a Django cursor. They run in the caller's transaction and write the JobEvent of
every step they take. `COLUMNS` is what a claim returns, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, NamedTuple, Protocol
from uuid import UUID

COLUMNS = (
    "id", "name", "queue", "tenant", "priority", "payload", "attempt", "max_attempts", "crash_count", "fence",
    "suspect", "cancel_requested", "request_id", "parent", "workflow",
)  # fmt: skip
# A row that may be claimed: it waits and its time has come. Or it is ours already: the answer to an earlier claim of
# ours was lost with the connection, after its commit (`states.may_be_claimed`). A CASE, because no planner looks into it: with plain conditions
# PostgreSQL reads all that waits by the partial index instead of a few rows by their ids (12 ms a claim at 20,000).
# A row that waits for its turn (1 or 2) is not to be had, whatever message led to it.
CLAIMABLE = (
    "CASE state WHEN 'PROCESSING' THEN owner = {worker}"
    " WHEN 'PENDING' THEN turn IN (0, 3) AND coalesce(run_after <= {now}, {true})"
    " WHEN 'FAILED' THEN turn IN (0, 3) AND coalesce(run_after <= {now}, {true})"
    " ELSE {false} END"
    " AND EXISTS (SELECT 1 FROM queue_app_worker WHERE id = {worker} AND lease_until > {now})"
)


class End(NamedTuple):
    """How a claimed job leaves PROCESSING. result, error and detail are JSON texts; None keeps what the row has.

    ran: 1 when a run ended, which counts as an attempt; 0 when the job goes back or is dropped before it started.
    delay_s: not before this many seconds from now.
    """

    id: UUID
    fence: int
    state: str
    ran: int
    result: str | None = None
    error: str | None = None
    delay_s: float | None = None
    detail: str = "{}"


class Claimed(NamedTuple):
    """A job that this worker may run now. expired: its time to start has passed."""

    id: UUID
    name: str
    queue: str
    tenant: str
    priority: int
    payload: Any
    attempt: int
    max_attempts: int
    crash_count: int
    fence: int
    suspect: bool
    cancel_requested: bool
    request_id: str
    parent: UUID | None
    expired: bool
    workflow: UUID | None = None


class New(NamedTuple):
    """Jobs to store. payloads: JSON texts. keys: none, or one for each job. common: COMMON's values, as columns take them."""

    ids: Sequence[UUID]
    payloads: Sequence[str]
    keys: Sequence[str]
    common: Sequence[Any]


class Statements(Protocol):
    """What each of the modules offers."""

    def insert(self, cursor: Any, new: New) -> set[UUID]:
        """Store new jobs and their first events; the ids of those whose unique keys were free."""

    def exchange(
        self,
        cursor: Any,
        worker: UUID,
        ids: Sequence[UUID],
        ends: Sequence[End],
        governed: Collection[str],
    ) -> tuple[list[Claimed], set[UUID]]:
        """Record ends and claim jobs, in one transaction; none is claimed when the worker's lease has ended.

        governed: queues of which nothing is claimed without a turn, even what was stored before they had limits.
        """

    def finish(self, cursor: Any, worker: UUID, ends: Sequence[End]) -> set[UUID]:
        """Record the ends whose fences still hold; the ids of those."""

    def now(self, cursor: Any) -> datetime:
        """The database's clock; in UTC where it is naive."""


EACH = ("id", "payload", "unique_key")
COMMON = (
    "name", "queue", "delivery", "tenant", "priority", "state", "max_attempts", "run_after", "expires_at", "published_at",
    "unique_until", "parent", "request_id", "created_at", "workflow", "turn",
)  # fmt: skip
# Columns without a database default that a new job has no value for yet.
UNSET = {
    "attempt": "0", "crash_count": "0", "fence": "0", "suspect": "{false}", "is_marked": "{false}",
    "cancel_requested": "{false}", "progress_note": "''",
}  # fmt: skip


def of(vendor: str) -> Statements:
    """The module for Django's `connection.vendor`."""
    module: Any = import_module(f".{vendor}", __name__)
    return module


def claimed(row: Sequence[Any]) -> Claimed:
    """A row of COLUMNS and `expired` as the driver returned it."""
    id, name, queue, tenant, priority, payload, attempt, *rest = row
    max_attempts, crash_count, fence, suspect, cancel_requested, request_id, parent, workflow, expired = rest
    return Claimed(
        _uuid(id),
        name,
        queue,
        tenant,
        priority,
        json.loads(payload) if isinstance(payload, str | bytes) else payload,
        attempt,
        max_attempts,
        crash_count,
        fence,
        bool(suspect),
        bool(cancel_requested),
        request_id,
        None if parent is None else _uuid(parent),
        bool(expired),
        None if workflow is None else _uuid(workflow),
    )


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
