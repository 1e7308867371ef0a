"""Statistics of before the levels, carried over: rows without a tenant become those of all, and back again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from queue_app import folding, spans, stats
from queue_app.histograms import total
from queue_app.levels import DAY_S, EPOCH, HOUR_S, MINUTE_S, floor
from queue_app.models import Lease, Rollup, RollupLevel

pytestmark = pytest.mark.usefixtures("every_database")

NOW = floor(timezone.now(), DAY_S) + timedelta(hours=5, minutes=7)
BEFORE, AFTER = "0020_rollup_levels", "0021_fill_rollup_levels"


@pytest.fixture
def old_rows(every_database: None) -> Iterator[list[tuple[Any, ...]]]:
    """Each step in one level: 3 days of minutes, which hours are half made of, then hours, then days."""
    call_command("migrate", "queue_app", BEFORE, verbosity=0)
    hour = floor(NOW - timedelta(days=3), HOUR_S)
    day = floor(NOW - timedelta(days=30), DAY_S)
    for tenant, count in (("", 1), ("acme", 2), ("Acme", 4)):
        for back in (NOW, NOW - timedelta(minutes=70), hour + timedelta(hours=2)):
            old(MINUTE_S, back, tenant, count)
        for at in (hour - timedelta(hours=1), hour - timedelta(days=2), day + timedelta(hours=30)):
            old(HOUR_S, at, tenant, count)
        for at in (day, day - timedelta(days=3)):
            old(DAY_S, at, tenant, count)
    old(MINUTE_S, NOW - timedelta(minutes=9), "acme", 8)  # nothing stands without a tenant here
    old(0, EPOCH, "", 64)
    yield rows()
    call_command("migrate", "queue_app", verbosity=0)
    for model in (Rollup, RollupLevel, Lease):
        model.objects.all().delete()


def old(step_s: int, at: Any, tenant: str, count: int) -> None:
    sums = {"completed": count, "run": {"7": count}, "run_s": count / 2, "wait": {}}
    Rollup.objects.create(
        step_s=step_s, at=floor(at, step_s or DAY_S), queue="q", name="t", tenant=tenant, **sums
    )


def rows() -> list[tuple[Any, ...]]:
    found = Rollup.objects.values_list("step_s", "at", "tenant", "completed", "run_s", "run")
    return sorted(found, key=lambda row: row[:3])


def told(since: str, **filters: str) -> tuple[int, dict[int, int]]:
    series, summary = stats.both(spans.question({"since": since, **filters}, NOW))
    found = total(tally for _, tally in series)
    assert total(summary.values()) == found
    return found.completed, found.run


def assert_carried_over() -> None:
    for _ in ("before the leader sums up", "afterwards"):
        assert told("1h") == (7 + 8, {7: 7 + 8})
        assert told("90m", tenant="acme") == (2 * 2 + 8, {7: 2 * 2 + 8})
        assert told("10d") == (5 * 7 + 8, {7: 5 * 7 + 8})
        assert told("60d", tenant="Acme") == (8 * 4, {7: 8 * 4})
        assert told("60d") == (8 * 7 + 8, {7: 8 * 7 + 8})
        assert Rollup.objects.get(step_s=0).completed == 64
        while folding.fold(NOW):
            pass


def test_fill__old_rows__are_told_as_before_and_of_all_tenants(old_rows: list[tuple[Any, ...]]) -> None:
    call_command("migrate", "queue_app", AFTER, verbosity=0)
    assert_carried_over()


def test_fill__there_and_back__is_the_same(old_rows: list[tuple[Any, ...]]) -> None:
    call_command("migrate", "queue_app", AFTER, verbosity=0)
    while folding.fold(NOW - timedelta(hours=2)):
        pass
    call_command("migrate", "queue_app", BEFORE, verbosity=0)
    assert rows() == old_rows
    assert not RollupLevel.objects.exists()


def test_fill__broken_off__goes_on_where_it_was(
    old_rows: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = MigrationExecutor(connection).loader.get_migration("queue_app", AFTER)
    module = __import__(type(loaded).__module__, fromlist=["_replace"])
    replace, left = module._replace, [3]

    def breaks(*given: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise ZeroDivisionError
        replace(*given)

    monkeypatch.setattr(module, "_replace", breaks)
    with pytest.raises(ZeroDivisionError):
        call_command("migrate", "queue_app", AFTER, verbosity=0)
    assert not RollupLevel.objects.exists()
    monkeypatch.setattr(module, "_replace", replace)
    call_command("migrate", "queue_app", AFTER, verbosity=0)
    assert_carried_over()
    assert not Lease.objects.filter(name="rollup levels").exists()
