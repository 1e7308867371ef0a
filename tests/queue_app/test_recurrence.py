"""Moments by cron and interval, around both changes of the clocks too, and what is done about missed ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from queue_app import recurrence
from queue_app.recurrence import Act, BadRecurrence, Missed, Overlap, Plan, Recurrence

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE, WEEK = timedelta(minutes=1), timedelta(weeks=1)
FAR = 10**6
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
# The local day, and its moments "HH:MM±offset" by each expression.
DAYS = [
    (BERLIN, (2026, 3, 29), "30 2 * * *", ["03:00+2"]),  # 02:00 to 03:00 does not exist
    (BERLIN, (2026, 3, 29), "0,30 2 * * *", ["03:00+2"]),
    (BERLIN, (2026, 3, 29), "0 3 * * *", ["03:00+2"]),
    (BERLIN, (2026, 3, 29), "*/30 2 * * *", []),
    (BERLIN, (2026, 3, 29), "30 1-3 * * *", ["01:30+1", "03:00+2", "03:30+2"]),
    (BERLIN, (2026, 3, 29), "0 */2 * * *", ["00:00+1", *(f"{hour:02}:00+2" for hour in range(4, 24, 2))]),
    (BERLIN, (2026, 10, 25), "30 2 * * *", ["02:30+2"]),  # 02:00 to 03:00 comes twice
    (BERLIN, (2026, 10, 25), "0 3 * * *", ["03:00+1"]),
    (BERLIN, (2026, 10, 25), "*/30 2 * * *", ["02:00+2", "02:30+2", "02:00+1", "02:30+1"]),
    (NEW_YORK, (2026, 3, 8), "30 2 * * *", ["03:00-4"]),
    (NEW_YORK, (2026, 3, 8), "*/30 2 * * *", []),
    (NEW_YORK, (2026, 11, 1), "30 1 * * *", ["01:30-4"]),
    (NEW_YORK, (2026, 11, 1), "*/30 1 * * *", ["01:00-4", "01:30-4", "01:00-5", "01:30-5"]),
]


def planned(rule: Recurrence, next_at: datetime, now: datetime, missed: Missed, **changes: float) -> Plan:
    terms = {"window_s": 86_400.0, "grace_s": 60.0, "at_most": FAR} | changes
    return recurrence.plan(rule, next_at, now, missed=missed, **terms)  # type: ignore[arg-type]


def local(moment: datetime, zone: str) -> str:
    there = moment.astimezone(ZoneInfo(zone))
    offset = there.utcoffset()
    assert offset is not None
    return f"{there:%H:%M}{offset // timedelta(hours=1):+}"


def day(zone: str, date: tuple[int, int, int]) -> tuple[datetime, datetime]:
    start = datetime(*date, tzinfo=ZoneInfo(zone))
    return start.astimezone(UTC), (start + timedelta(days=1)).astimezone(UTC) - MINUTE


# --- moments -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("zone", "date", "expression", "expected"), DAYS)
def test_cron__day_on_which_the_clocks_change__fires_as_debians_cron_does(zone, date, expression, expected):
    rule = recurrence.cron(expression, zone)
    assert [
        local(moment, zone) for moment in recurrence.between(rule, *day(zone, date), at_most=FAR)
    ] == expected


@pytest.mark.parametrize(("zone", "date"), sorted({(zone, date) for zone, date, *_ in DAYS}))
def test_cron__each_minute_of_such_a_day__no_minute_is_left_out_or_doubled(zone, date):
    start, end = day(zone, date)
    moments = recurrence.between(recurrence.cron("* * * * *", zone), start, end, at_most=FAR)
    assert moments == [start + n * MINUTE for n in range((end - start) // MINUTE + 1)]


@pytest.mark.parametrize(("zone", "date", "expression", "expected"), DAYS)
def test_cron__asked_from_each_minute_of_such_a_day__goes_forward_and_agrees_with_itself(
    zone, date, expression, expected
):
    rule = recurrence.cron(expression, zone)
    start, end = day(zone, date)
    moments = recurrence.between(rule, start, end + timedelta(days=2), at_most=FAR)
    for n in range(0, (end - start) // MINUTE, 5):
        asked = start + n * MINUTE
        assert rule.after(asked) == next(moment for moment in moments if moment > asked)
        past = [moment for moment in moments if moment <= asked]
        if past:
            assert rule.latest(past[0], asked) == past[-1]


def test_every__interval__counts_from_its_start_whatever_is_asked():
    rule = recurrence.every(90, NOON)
    assert rule.after(NOON - WEEK) == NOON
    assert rule.after(NOON) == NOON + timedelta(seconds=90)
    assert rule.after(NOON + timedelta(seconds=89.5)) == NOON + timedelta(seconds=90)
    assert rule.latest(NOON, NOON + timedelta(seconds=200)) == NOON + timedelta(seconds=180)
    assert recurrence.upcoming(rule, NOON, 2) == [NOON + timedelta(seconds=90), NOON + timedelta(seconds=180)]


def test_after__expression_that_comes_long_after__is_found():
    assert recurrence.cron("0 0 * 2 MON#5", "UTC").after(NOON) == datetime(2044, 2, 29, tzinfo=UTC)


# --- missed ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", [recurrence.cron("0 * * * *", BERLIN), recurrence.every(3600, NOON)])
def test_plan__a_week_of_missed_runs__each_policy_fires_its_share(rule):
    now = NOON + WEEK + timedelta(minutes=30)
    newest = NOON + WEEK
    tomorrow = newest + timedelta(hours=1)
    assert planned(rule, NOON, now, Missed.SKIP) == Plan((), (NOON, now), tomorrow)
    assert planned(rule, NOON, now, Missed.LAST) == Plan((newest,), (NOON, newest), tomorrow)
    found = planned(rule, NOON, now, Missed.ALL)
    since = newest - timedelta(hours=23)
    assert found.fire == tuple(since + timedelta(hours=n) for n in range(24))
    assert (found.missed, found.next_at) == ((NOON, since), tomorrow)


@pytest.mark.parametrize("missed", list(Missed))
def test_plan__in_time__fires_and_nothing_was_missed(missed):
    rule = recurrence.every(3600, NOON)
    assert planned(rule, NOON, NOON + timedelta(seconds=59), missed) == Plan(
        (NOON,), None, NOON + timedelta(hours=1)
    )
    assert planned(rule, NOON, NOON - timedelta(seconds=1), missed) == Plan((), None, NOON)


def test_plan__first_after_the_grace__only_skip_leaves_it():
    rule, now = recurrence.every(3600, NOON), NOON + timedelta(seconds=61)
    assert planned(rule, NOON, now, Missed.SKIP).fire == ()
    assert planned(rule, NOON, now, Missed.LAST).fire == planned(rule, NOON, now, Missed.ALL).fire == (NOON,)


def test_plan__more_than_fit__goes_on_where_it_stopped():
    rule, now, found = recurrence.every(60, NOON), NOON + timedelta(minutes=9), list[datetime]()
    next_at: datetime | None = NOON
    while next_at is not None and next_at <= now:
        part = planned(rule, next_at, now, Missed.ALL, at_most=4)
        found += part.fire
        next_at = part.next_at
    assert found == [NOON + n * MINUTE for n in range(10)]
    assert next_at == NOON + timedelta(minutes=10)


def test_plan__clock_an_hour_on_and_back__each_moment_fires_once():
    rule, found = recurrence.every(600, NOON), list[datetime]()
    next_at: datetime | None = NOON
    for offset_min in (0, 5, 60, 0, 10, 30, 60, 65, 70):
        assert next_at is not None
        part = planned(rule, next_at, NOON + offset_min * MINUTE, Missed.ALL)
        found += part.fire
        next_at = part.next_at
    assert found == [NOON + n * 10 * MINUTE for n in range(8)]


# --- bad input -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("expression", "zone", "field", "told"),
    [
        ("61 * * * *", "UTC", "cron", "its minute is wrong"),
        ("* 24 * * *", "UTC", "cron", "its hour is wrong"),
        ("* * 31 2 *", "UTC", "cron", "its day-of-month is wrong"),
        ("* * * * MO", "UTC", "cron", "its day-of-week is wrong"),
        ("*/0 * * * *", "UTC", "cron", "its minute is wrong"),
        ("* * * *", "UTC", "cron", "not the five fields"),
        ("0 * * * * *", "UTC", "cron", "not the five fields"),
        ("", "UTC", "cron", "not the five fields"),
        ("1," * 60 + "1 * * * *", "UTC", "cron", "at most 100 characters"),
        ("* * * * *", "Europe/Berln", "time_zone", "did you mean 'Europe/Berlin'?"),
        ("* * * * *", "Europe", "time_zone", "no time zone"),
        ("* * * * *", "../../etc/passwd", "time_zone", "no time zone"),
        ("* * * * *", "", "time_zone", "no time zone"),
    ],
)
def test_cron__bad__names_the_field_and_what_is_wrong(expression, zone, field, told):
    with pytest.raises(BadRecurrence, match=r".") as raised:
        recurrence.cron(expression, zone)
    assert raised.value.field == field
    assert told in str(raised.value)


@pytest.mark.parametrize("interval_s", [0, -1, True, 1.5, "60", 10**9])
def test_every__bad__is_refused(interval_s):
    with pytest.raises(BadRecurrence) as raised:
        recurrence.every(interval_s, NOON)
    assert raised.value.field == "interval_s"


# --- words -----------------------------------------------------------------------------------------------------------------
def test_words__timing_and_moments__read_as_a_sentence():
    assert (
        recurrence.cron(" 0  9 * *  1-5", BERLIN).words()
        == "At 09:00 on Monday through Friday, Europe/Berlin"
    )
    assert recurrence.every(3600, NOON).words() == "Every hour"
    assert recurrence.every(5400, NOON).words() == "Every 1 hour 30 minutes"
    assert recurrence.every(300, NOON).words() == "Every 5 minutes"
    soon = recurrence.told(NOON + timedelta(hours=3, seconds=5), NOON, ZoneInfo(BERLIN))
    assert soon == "in 3 hours 5 seconds: Thu 01 Jan 2026 16:00:05 CET"
    assert (
        recurrence.told(NOON, NOON + MINUTE, ZoneInfo("UTC")) == "1 minute ago: Thu 01 Jan 2026 12:00:00 UTC"
    )


@pytest.mark.parametrize(
    ("overlap", "is_open", "waits", "expected"),
    [
        *[(overlap, False, waits, Act.FIRE) for overlap in Overlap for waits in (False, True)],
        *[(Overlap.ALLOW, True, waits, Act.FIRE) for waits in (False, True)],
        *[(Overlap.SKIP, True, waits, Act.SKIP) for waits in (False, True)],
        (Overlap.WAIT, True, False, Act.WAIT),
        (Overlap.WAIT, True, True, Act.SKIP),
        (Overlap.REPLACE, True, False, Act.WAIT),
        (Overlap.REPLACE, True, True, Act.WAIT),
    ],
)
def test_act__policy_and_the_last_job__as_the_table_says(overlap, is_open, waits, expected):
    assert recurrence.act(overlap, is_open=is_open, waits=waits) == expected
