"""Which jobs: where they stand, as conditions in the words that the databases' indexes are for.

As texts in the statement: SQLite takes a partial index only where the query repeats its condition without parameters.
Unqualified, so that they also hold in a subquery, where the table has another name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connection
from django.db.models import Lookup, Q, QuerySet, Value

from .clock import Clock
from .models import Job
from .states import State


class Condition(Lookup):
    """A text of ours that is true of a row. RawSQL would do, but MySQL is told `(text) = 1` then, and uses no index."""

    prepare_rhs = False

    def __init__(self, text: str) -> None:
        super().__init__(Value(True), text)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        return f"({self.rhs})", []


_OPEN = Condition("state IN ('PENDING', 'FAILED') AND delivery = 'ledger'")
WAITS = Condition("state IN ('PENDING', 'FAILED') AND delivery = 'ledger' AND turn IN (0, 1, 3)")
OPEN = Condition("state IN ('PENDING', 'PROCESSING', 'FAILED')")
# True of every row: what finds the two kinds has an index for each, and the planner takes both where it is told of both.
OVER_OR_OPEN = Condition(
    "state IN ('COMPLETED', 'DEAD_LETTER', 'CANCELLED') OR state IN ('PENDING', 'PROCESSING', 'FAILED')"
)
DEAD = Condition("state = 'DEAD_LETTER'")
RUNS = Condition("state = 'PROCESSING' AND delivery = 'ledger'")


def in_states(wanted: Iterable[State]) -> Condition:
    """As a text, for the sake of the partial indexes."""
    names = ", ".join(f"'{State(state).value}'" for state in wanted)
    return Condition(f"state IN ({names})")


def waiting() -> QuerySet[Job]:
    """The ledger's jobs that wait for a worker, due or not; those that wait for their turn are the governor's."""
    return Job.objects.filter(WAITS)


def backlog() -> QuerySet[Job]:
    """All of the ledger's jobs that wait to be run, due or not."""
    return Job.objects.filter(_OPEN)


def is_due() -> Q:
    """Its time has come."""
    return Q(run_after=None) | Q(run_after__lte=Clock())


def locked(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """With their rows locked where the database can; several reconcilers share the work instead of waiting."""
    return jobs.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked)
