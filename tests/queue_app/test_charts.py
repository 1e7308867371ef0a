from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from queue_app import charts
from queue_app.histograms import Tally, bucket

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW = AT + timedelta(seconds=150)  # in the third minute


def tally(
    completed: int = 0, *, failed: int = 0, dead: int = 0, wait_s: float = 0.0, run_s: float = 0.0
) -> Tally:
    waits = {bucket(wait_s): completed} if wait_s else {}
    runs = {bucket(run_s): completed} if run_s else {}
    return Tally(started=completed, completed=completed, failed=failed, dead=dead, wait=waits, run=runs)


def points(*tallies: Tally) -> list[tuple[datetime, Tally]]:
    return [(AT + timedelta(minutes=number), found) for number, found in enumerate(tallies)]


def test_charts__a_step_without_runs__is_a_gap_and_not_a_zero():
    found = charts.charts(points(tally(4, failed=1, wait_s=0.2, run_s=1), tally(), tally(9)), 60, NOW)
    throughput, wait, _, failures = found
    assert [line.values for line in throughput.lines][:2] == [[4, 0, 9], [1, 0, 0]]
    assert wait.lines[0].values == [pytest.approx(0.2, rel=0.05), None, None]
    assert failures.lines[0].values == [0.2, None, 0.0]
    json.dumps(charts.document(found, charts.labels(points(tally()), 60)), allow_nan=False)


def test_charts__told__last_whole_step_and_the_sum():
    told = {one.id: one.told for one in charts.charts(points(tally(), tally(7, dead=1), tally(2)), 60, NOW)}
    assert (
        told["throughput"] == "8 runs in the last minute. In all 9 completed, 0 failed, 1 dead, 0 cancelled."
    )
    assert told["failures"] == "Last 12 %. In all 10 %."
    assert told["wait"] == "Last none. In all none."


def test_charts__nothing_at_all__empty_charts():
    assert all(not line.values for one in charts.charts([], 60, NOW) for line in one.lines)


@pytest.mark.parametrize(
    ("step_s", "count", "label"),
    [(60, 61, "12:00"), (900, 97, "12:00"), (21_600, 28, "Nov 24 12:00"), (86_400, 30, "Nov 24")],
)
def test_labels__by_the_length_of_the_time__say_what_tells_steps_apart(step_s, count, label):
    assert charts.labels([(AT, tally())] * count, step_s)[0] == label


@pytest.mark.parametrize(
    ("step_s", "word"), [(60, "minute"), (300, "5 minutes"), (3600, "hour"), (86_400, "day")]
)
def test_per__a_step__in_words(step_s, word):
    assert charts.per(step_s) == word


SUMMARY = {
    ("a", "x"): tally(5, wait_s=3, run_s=1),
    ("b", "x"): tally(9, failed=1, wait_s=1, run_s=9),
    ("c", "y"): Tally(cancelled=3),
}


@pytest.mark.parametrize(
    ("sort", "queues"),
    [
        ("queue", "abc"), ("-queue", "cba"), ("-task", "cba"), ("-runs", "bac"), ("failures", "acb"),
        ("share", "abc"), ("-share", "bac"), ("wait_p95", "bac"), ("-wait_p95", "abc"), ("-run_p50", "bac"),
    ],
)  # fmt: skip
def test_rows__by_each_column__what_has_no_value_comes_last(sort, queues):
    assert "".join(row.queue for row in charts.rows(SUMMARY, sort)) == queues


@pytest.mark.parametrize("sort", ["", "-", "tenant", "--runs", "runs; drop"])
def test_rows__by_no_column__value_error(sort):
    with pytest.raises(ValueError, match="is not one of queue, task"):
        charts.rows(SUMMARY, sort)


@pytest.mark.parametrize("values", [[], [0, 0, 0], [5], [0, 3, 1_000_000]])
def test_spark__any_values__stays_inside(values):
    found = charts.spark(values, 100, 20)
    spots = [tuple(map(float, spot.split(","))) for spot in found.area.split()]
    assert all(0 <= x <= 100 and 0 <= y <= 20 for x, y in spots)
    assert len(found.line.split()) == len(values)
