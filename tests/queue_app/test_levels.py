"""Which level of the statistics holds what, and which are read for a question."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from queue_app import levels
from queue_app.levels import DAY_S, EPOCH, HOUR_S, LEVELS, MINUTE_S, Mark, Part, cover, floor

NOW = datetime(2026, 11, 26, 12, 34, tzinfo=UTC)


def settled_marks(now: datetime = NOW, minutes_h: int = 48, hours_d: int = 30) -> dict[int, Mark]:
    """As after a month of work: all that is closed is summed up."""
    minutes = floor(now - timedelta(hours=minutes_h), HOUR_S)
    hours = floor(now - timedelta(days=hours_d), DAY_S)
    kept = {MINUTE_S: minutes, 300: minutes, 900: minutes, HOUR_S: hours, 21_600: hours, DAY_S: EPOCH}
    return {step_s: Mark(floor(now, step_s), 0, kept[step_s]) for step_s in LEVELS}


def test_cover__closed_and_open_spans__takes_the_coarsest_that_has_them() -> None:
    since, until = NOW - timedelta(days=30, hours=12, minutes=34), NOW + timedelta(minutes=1)
    parts = cover(since, until, DAY_S, "", settled_marks())
    assert [(part.step_s, part.since.hour, part.since.minute) for part in parts] == [
        (86_400, 0, 0),
        (21_600, 0, 0),
        (900, 12, 0),
        (60, 12, 30),
    ]


def test_cover__a_tenant__skips_the_levels_that_its_rows_do_not_have() -> None:
    since, until = floor(NOW, DAY_S), NOW + timedelta(minutes=1)
    parts = cover(since, until, DAY_S, "acme", settled_marks())
    assert [part.step_s for part in parts] == [HOUR_S, 300, 60]


def test_cover__minutes_are_gone__takes_whole_hours() -> None:
    marks = settled_marks(minutes_h=2)
    gone = marks[MINUTE_S].kept_from
    parts = cover(gone - timedelta(minutes=90), gone + timedelta(minutes=5), MINUTE_S, "", marks)
    assert parts == [
        Part(HOUR_S, gone - timedelta(hours=1), gone),
        Part(MINUTE_S, gone, gone + timedelta(minutes=5)),
    ]


def test_cover__nothing_is_summed_up__reads_minutes() -> None:
    marks = dict.fromkeys(LEVELS, Mark())
    since = NOW - timedelta(days=1)
    assert cover(since, NOW, DAY_S, "", marks) == [Part(MINUTE_S, since, NOW)]


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_cover__any_question__parts_meet_and_never_pass_what_a_level_holds(tenant: str) -> None:
    chance = random.Random(11)
    for _ in range(500):
        now = NOW + timedelta(minutes=chance.randrange(10_000))
        marks = settled_marks(now, minutes_h=chance.choice([1, 5, 48]), hours_d=chance.choice([2, 7, 30]))
        step_s = chance.choice(LEVELS)
        since = floor(now - timedelta(minutes=chance.randrange(1, 60_000)), step_s)
        until = floor(now, step_s) + timedelta(seconds=step_s)
        parts = cover(since, until, step_s, tenant, marks)
        assert parts[-1].until == until
        for before, after in zip(parts, parts[1:], strict=False):
            assert before.until == after.since
        assert timedelta(0) <= parts[0].since - since < timedelta(days=1)
        for part in parts:
            assert part.step_s in levels.levels(tenant)
            assert floor(part.since, part.step_s) == part.since >= marks[part.step_s].kept_from
            assert part.until <= levels.closed_to(part.step_s, marks)
            assert part.step_s <= step_s or part.until <= marks[MINUTE_S].kept_from


def test_kept_from__what_no_coarser_level_has__stays() -> None:
    marks = settled_marks()
    assert levels.kept_from((60, 300, 900), marks, NOW + timedelta(days=1)) == floor(NOW, HOUR_S)
    behind = marks | {DAY_S: Mark(NOW - timedelta(days=40, hours=3), 7)}
    assert levels.kept_from((3600, 21_600), behind, NOW) == floor(NOW - timedelta(days=40, hours=3), DAY_S)
    assert levels.kept_from((DAY_S,), marks, NOW) == floor(NOW, DAY_S)


def test_finer_and_coarser__are_each_others_ends() -> None:
    assert [levels.coarser(step_s, "") for step_s in (0, *LEVELS)] == [
        None,
        300,
        900,
        3600,
        21_600,
        86_400,
        None,
    ]
    assert [levels.coarser(step_s, "acme") for step_s in (60, 300, 3600, 86_400)] == [300, 3600, 86_400, None]
    assert (levels.finer(900, ""), levels.finer(900, "acme"), levels.finer(3600, "acme")) == (300, None, 300)
