"""Durations in buckets: where they go, what is read from them, and that adding up loses nothing."""

from __future__ import annotations

import math
import random

import pytest

from queue_app import histograms
from queue_app.histograms import ERROR, LAST, LOWEST_S, Tally, bucket, quantile, upper_s


@pytest.mark.parametrize("share", histograms.QUANTILES)
def test_quantile__many_durations__is_within_the_stated_error(share: float) -> None:
    chance = random.Random(7)
    durations = sorted(chance.lognormvariate(-2, 2) for _ in range(5_000))
    found = quantile(filled(durations), share)
    exact = durations[math.ceil(share * len(durations)) - 1]
    assert found == pytest.approx(exact, rel=ERROR + 1e-9, abs=LOWEST_S)


def filled(durations: list[float]) -> histograms.Histogram:
    found: histograms.Histogram = {}
    for seconds in durations:
        histograms.add(found, {bucket(seconds): 1})
    return found


def test_quantile__nothing_counted__is_none() -> None:
    assert quantile({}, 0.5) is None
    assert histograms.quantiles({}) == {"p50": None, "p95": None, "p99": None}


def test_bucket__at_its_ends__holds_its_upper_one() -> None:
    assert [bucket(seconds) for seconds in (-1, 0, LOWEST_S)] == [0, 0, 0]
    assert bucket(LOWEST_S * 1.0001) == 1
    assert bucket(upper_s(50) * 0.9999) == 50
    assert bucket(upper_s(50) * 1.0001) == 51
    assert bucket(1e12) == LAST


def test_json__there_and_back__is_the_same() -> None:
    assert histograms.from_json(histograms.to_json({12: 3, 0: 1})) == {0: 1, 12: 3}


def test_tally__steps_of_each_kind__are_counted_and_measured() -> None:
    tally = Tally()
    tally.note("PROCESSING", 5, 2, 0.4)
    tally.note("COMPLETED", 7, 1, 0.5)
    tally.note("DEAD_LETTER", 999, 1, 1e9)
    tally.note("CANCELLED", None, 3, 0.0)
    assert (tally.started, tally.completed, tally.failed, tally.dead, tally.cancelled) == (2, 1, 0, 1, 3)
    assert (tally.wait, tally.run) == ({5: 2}, {7: 1, LAST: 1})
    assert tally.failure_share == 0.5
    assert Tally().failure_share is None


def test_total__of_parts__is_as_counted_at_once() -> None:
    one, other = Tally(), Tally()
    for tally in (one, other):
        tally.note("COMPLETED", 7, 2, 0.5)
    both = histograms.total([one, other])
    assert (both.completed, both.run, both.run_s) == (4, {7: 4}, 1.0)
    assert one.run == {7: 2}
