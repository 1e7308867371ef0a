"""Levels of the statistics that are summed up from minutes: exact at every border, whenever a step comes and whoever dies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queue_app import clock, folding, levels, rollup_rows, spans, stats
from queue_app.conf import conf
from queue_app.histograms import Tally, total
from queue_app.levels import ALL_TIME_S, DAY_S, EPOCH, HOUR_S, LEVELS, MINUTE_S, Key, floor
from queue_app.models import Lease, Rollup, RollupLevel

pytestmark = pytest.mark.usefixtures("every_database")

NOW = floor(timezone.now(), DAY_S) + timedelta(hours=13, minutes=37)
TENANTS = ("", "acme", "Zebra")


@pytest.fixture(autouse=True)
def empty(every_database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    yield
    for model in (Rollup, RollupLevel, Lease):
        model.objects.all().delete()


class History:
    """Steps as the leader counts them, and kept as they were, to add them up by hand."""

    def __init__(self) -> None:
        self.steps: list[tuple[datetime, str, str, str, int]] = []

    def count(
        self, at: datetime, tenant: str = "", queue: str = "mail", name: str = "send", bucket: int = 7
    ) -> None:
        self.count_all([(at, tenant, queue, name, bucket)])

    def count_all(self, steps: list[tuple[datetime, str, str, str, int]]) -> None:
        self.steps += steps
        tallies: rollup_rows.Tallies = {}
        for at, tenant, queue, name, bucket in steps:
            minute = floor(at, MINUTE_S)
            for key in {Key(MINUTE_S, minute, queue, name, ""), Key(MINUTE_S, minute, queue, name, tenant)}:
                tallies.setdefault(key, Tally()).note("COMPLETED", bucket, 1, 0.5)
        with transaction.atomic():
            rollup_rows.hold()
            rollup_rows.carry(tallies)

    def told(self, asked: spans.Question) -> tuple[int, dict[int, int]]:
        """How many ended, and how long they took."""
        buckets: dict[int, int] = {}
        for at, tenant, queue, name, bucket in self.steps:
            wanted = (asked.tenant or tenant, asked.queue or queue, asked.name or name)
            if asked.since <= at < asked.until and wanted == (tenant, queue, name):
                buckets[bucket] = buckets.get(bucket, 0) + 1
        return sum(buckets.values()), buckets


def fold_all(settled: datetime = NOW) -> None:
    while folding.fold(settled):
        pass


def ask(since: str, step: str = "", **filters: str) -> spans.Question:
    return spans.question({"since": since, "step": step, **filters}, NOW)


def assert_exact(history: History, asked: spans.Question) -> None:
    """Series, summary and both are the history added up by hand, each point of it too."""
    series, summary = stats.both(asked)
    wanted = history.told(asked)
    for found in (
        total(tally for _, tally in series),
        total(summary.values()),
        total(stats.summary(asked).values()),
    ):
        assert (found.completed, found.run) == wanted
        assert found.run_s == pytest.approx(wanted[0] / 2)
    for start, tally in series:
        until = start + timedelta(seconds=asked.step_s)
        assert tally.completed == history.told(asked._replace(since=start, until=until))[0]


@pytest.mark.parametrize("part", [3, 2_000])
def test_fold__across_hours_and_days_with_late_steps__every_question_is_exact(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(folding, "_PART", part)
    chance, history = random.Random(part), History()

    def drawn(count: int) -> list[tuple[datetime, str, str, str, int]]:
        return [
            (
                NOW - timedelta(minutes=int(60 * 72 * chance.random() ** 3), seconds=chance.randrange(60)),
                chance.choice(TENANTS),
                chance.choice(["mail", "pay"]),
                chance.choice(["send", "check"]),
                chance.randrange(4),
            )
            for _ in range(count)
        ]

    history.count_all(drawn(100))
    for _ in range(6):
        step_s = chance.choice(LEVELS[1:])
        for _ in range(chance.randrange(12)):
            folding.fold_part(step_s, NOW)
        history.count_all(drawn(8))  # some of them in spans that are summed up, wholly or by half
    fold_all()
    history.count_all(drawn(20))
    for since in ("1h", "6h", "24h", "3d", "7d"):
        for filters in (
            {},
            {"tenant": "acme"},
            {"queue": "pay", "name": "send"},
            {"tenant": "Zebra", "queue": "mail"},
        ):
            assert_exact(history, ask(since, **filters))
    assert_exact(history, ask("24h", "1m", tenant="acme"))
    assert_exact(history, ask("3d", "5m"))


def test_fold__leader_dies_in_a_part__the_next_one_adds_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "_PART", 2)
    history = History()
    history.count_all(
        [(NOW - timedelta(minutes=10 + number), "acme", "mail", "send", 5) for number in range(9)]
    )
    folding.fold_part(300, NOW)
    before = (rollup_rows.marks(), Rollup.objects.count())
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        folding.fold_part(300, NOW)
        raise ZeroDivisionError
    assert (rollup_rows.marks(), Rollup.objects.count()) == before
    fold_all()
    assert fold_again_adds_nothing()
    assert_exact(history, ask("6h"))
    assert_exact(history, ask("6h", tenant="acme"))


def fold_again_adds_nothing() -> bool:
    sums = sorted(Rollup.objects.values_list("step_s", "at", "tenant", "completed"))
    folding.fold(NOW)
    return sorted(Rollup.objects.values_list("step_s", "at", "tenant", "completed")) == sums


def test_fold__steps_that_are_not_settled__are_left_alone() -> None:
    history = History()
    history.count(NOW - timedelta(minutes=30))
    assert folding.fold(NOW - timedelta(minutes=40)) == 0
    assert set(Rollup.objects.values_list("step_s", flat=True)) == {MINUTE_S}


def test_carry__step_comes_days_late__is_added_to_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    at = NOW - timedelta(days=2, hours=3)
    history.count(at, "acme")
    fold_all()
    history.count(at + timedelta(minutes=1), "acme")
    history.count(at + timedelta(minutes=2), "new")
    rows = Rollup.objects.filter(step_s=DAY_S, at=floor(at, DAY_S)).values_list("tenant", "completed")
    assert dict(rows) == {"": 3, "acme": 2, "new": 1}
    assert_exact(history, ask("3d", "1h"))
    assert_exact(history, ask("7d", "1d", tenant="new"))


def test_expire__old_levels__go_and_their_sums_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = replace(conf(), ROLLUP_MINUTES_S=3600.0, ROLLUP_HOURS_S=86_400.0, ROLLUP_DAYS_S=86_400.0 * 3)
    monkeypatch.setattr("queue_app.folding.conf", lambda: kept)
    history = History()
    for hours in (0, 1, 3, 5, 30, 50, 60):
        history.count(NOW - timedelta(hours=hours, minutes=5), "acme")
    history.count(NOW - timedelta(days=9))
    fold_all()
    assert folding.expire() == 0  # said, and still to be found by who has just read the marks
    assert_exact(history, ask("24h", "1h"))
    assert folding.expire() > 0
    history.count(NOW - timedelta(hours=5), "acme")  # a late one, whose minute is gone
    folding.expire()
    oldest = {step_s: Rollup.objects.filter(step_s=step_s).order_by("at").first() for step_s in LEVELS}
    assert oldest[MINUTE_S].at >= floor(NOW - timedelta(hours=1), HOUR_S)
    assert oldest[HOUR_S].at >= floor(NOW - timedelta(days=1), DAY_S)
    assert oldest[DAY_S].at >= floor(NOW - timedelta(days=3), DAY_S)
    told = stats.both(spans.question({"since": "24h", "step": "1m"}, NOW))[0]
    assert sum(tally.completed for _, tally in told) == 5
    assert sum(tally.completed for _, tally in stats.series(ask("4d", "1d"))) == 8
    assert total(stats.summary(ask("4d", "1d", tenant="acme")).values()).completed == 8


def test_expire__nothing_is_summed_up_yet__deletes_nothing() -> None:
    history = History()
    history.count(NOW - timedelta(days=40))
    assert (folding.expire(), folding.expire(), Rollup.objects.count()) == (0, 0, 1)
    assert_exact(history, ask("50d"))


def test_both__any_time__asks_the_same_number_of_statements() -> None:
    history = History()
    for hours in (0, 1, 20, 100, 500):
        history.count(NOW - timedelta(hours=hours), "acme")
    fold_all()
    for since in ("1h", "24h", "30d"):
        with CaptureQueriesContext(connection) as asked:
            stats.both(ask(since))
        assert len(asked) == 2


def test_all_time__tenants__are_no_part_of_it() -> None:
    tallies = {Key(ALL_TIME_S, EPOCH, "mail", "send", ""): Tally(completed=3)}
    with transaction.atomic():
        rollup_rows.carry(tallies)
        rollup_rows.carry(tallies)
    assert Rollup.objects.get().completed == 6
    assert levels.coarser(ALL_TIME_S, "") is None
