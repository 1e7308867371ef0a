"""Statistics are read alike from each database: histograms come as texts, counts are summed up there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import transaction

from queue_app import clock, rollups, spans, stats
from queue_app.histograms import Tally, total
from queue_app.models import Rollup

from . import counted


@pytest.fixture(autouse=True)
def no_rollups(every_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And a clock that stands still: no minute begins meanwhile."""
    Rollup.objects.all().delete()
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    yield
    Rollup.objects.all().delete()


def put(queue: str, minutes_ago: int, **fields: object) -> None:
    at = rollups.floor(clock.now() - timedelta(minutes=minutes_ago), 60)
    with transaction.atomic():
        counted.put(60, at, queue, **fields)


def test_both__rows_of_tenants_and_minutes__add_up() -> None:
    put(
        "mail",
        3,
        tenant="a",
        started=2,
        completed=2,
        wait={5: 2},
        wait_s=0.5,
        run={7: 1, 12: 1},
        run_s=1.5,
    )
    put("mail", 3, tenant="b", started=1, failed=1, wait={5: 1, 240: 3}, wait_s=0.25)
    put("pay", 50, cancelled=4)
    series, summary = stats.both(spans.question({}, clock.now()))
    mail = Tally(
        started=3, completed=2, failed=1, wait={5: 3, 240: 3}, wait_s=0.75, run={7: 1, 12: 1}, run_s=1.5
    )
    assert summary == {("mail", "send"): mail, ("pay", "send"): Tally(cancelled=4)}
    assert total(tally for _, tally in series) == total(summary.values())
    assert len([at for at, tally in series if tally != Tally()]) == 2


def test_recent__runs_that_ended__by_minute_without_the_one_that_has_begun() -> None:
    put("mail", 1, completed=2, failed=1, dead=1, cancelled=9)
    put("mail", 60, tenant="a", completed=5)
    put("mail", 60, tenant="b", completed=6)
    put("mail", 0, completed=100)
    put("old", 61, completed=1)
    assert stats.recent() == {"mail": [11, *[0] * 58, 4]}
