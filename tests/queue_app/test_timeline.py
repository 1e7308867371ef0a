from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queue_app import timeline
from queue_app.timeline import GIVEN_BACK, LOST, RUNNING, Run, Step

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ERROR = {"type": "OSError", "message": "refused", "traceback": "Traceback …"}


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def step(state: str, seconds: float, worker: str = "", **detail: Any) -> Step:
    return Step(state, at(seconds), worker, detail)


def told(found: list[Run]) -> list[tuple[int, float, float, str]]:
    """Number, waited, ran, outcome; what still runs has run until a minute after the beginning."""
    return [(run.number, run.waited_s, run.ran_s(at(60)), run.outcome) for run in found]


def test_runs__retried_until_it_works__each_waits_from_when_it_was_due():
    found = timeline.runs([
        step("PENDING", 0),
        step("PROCESSING", 2, "a"), step("FAILED", 3, "a", error="OSError", retry_in_s=10),
        step("PROCESSING", 14, "b"), step("COMPLETED", 20, "b"),
    ])  # fmt: skip
    assert told(found) == [(1, 2, 1, "FAILED"), (2, 1, 6, "COMPLETED")]
    assert [run.worker for run in found] == ["a", "b"]


def test_runs__given_back__is_no_run_and_lost_is_one():
    found = timeline.runs([
        step("PENDING", 0),
        step("PROCESSING", 1), step("PENDING", 2, reason="worker stopped"),
        step("PROCESSING", 3), step("PENDING", 9, reason="worker lost", charged=True),
        step("PROCESSING", 10),
    ])  # fmt: skip
    assert told(found) == [(0, 1, 1, GIVEN_BACK), (1, 1, 6, LOST), (2, 1, 50, RUNNING)]


def test_runs__delivered_again_without_an_end__the_one_before_is_lost():
    found = timeline.runs(
        [step("PENDING", 0), step("PROCESSING", 1), step("PROCESSING", 5), step("COMPLETED", 6)]
    )
    assert told(found) == [(1, 1, 4, LOST), (2, 0, 1, "COMPLETED")]


@pytest.mark.parametrize(
    ("action", "state", "waited_s"),
    [
        ("replayed", "PENDING", 10),
        ("run now", "FAILED", 10),
        ("aged", "PENDING", 25),
        ("payload edited", "DEAD_LETTER", 25),
    ],
)
def test_runs__somebody_acts_between__due_then_unless_it_is_no_move(action, state, waited_s):
    found = timeline.runs([
        step("PENDING", 0), step("PROCESSING", 1), step("DEAD_LETTER", 5),
        step(state, 20, action=action), step("PROCESSING", 30),
    ])  # fmt: skip
    assert found[-1].waited_s == waited_s


def test_runs__asked_to_stop__runs_on_until_it_ends():
    found = timeline.runs([
        step("PENDING", 0), step("PROCESSING", 1), step("PROCESSING", 4, action="cancel asked"), step("CANCELLED", 6),
    ])  # fmt: skip
    assert told(found) == [(1, 1, 5, "CANCELLED")]


def test_runs__delayed__waits_from_its_time():
    steps = [step("PENDING", 0), step("PROCESSING", 33), step("COMPLETED", 34)]
    assert timeline.runs(steps, run_after=at(30))[0].waited_s == 3
    assert timeline.runs(steps, run_after=at(99))[0].waited_s == 33  # of a later wait


def test_runs__error__what_the_step_knows_and_the_last_one_from_the_row():
    steps = [
        step("PENDING", 0), step("PROCESSING", 1), step("FAILED", 2, error="ValueError"),
        step("PROCESSING", 3), step("DEAD_LETTER", 4, error="OSError", reason="no attempt is left"),
    ]  # fmt: skip
    first, last = timeline.runs(steps, last_error=ERROR)
    assert (first.error, last.error) == ({"type": "ValueError"}, ERROR)
    assert timeline.runs(steps, last_error={"type": "Unstorable"})[1].error == {"type": "OSError"}


def test_runs__error_in_whole_in_the_step__is_that_run_s_own():
    steps = [step("PENDING", 0), step("PROCESSING", 1), step("FAILED", 2, error={**ERROR, "path": "x.Y"})]
    assert timeline.runs(steps)[0].error == ERROR


@pytest.mark.parametrize(
    "steps", [[], [step("PENDING", 0)], [step("PENDING", 0), step("CANCELLED", 3, action="cancelled")]]
)
def test_runs__never_claimed__none(steps):
    assert timeline.runs(steps) == []


def test_bars__waits_of_hours_and_runs_of_ms__inside_and_to_be_seen():
    found = timeline.runs([
        step("PENDING", 0), step("PROCESSING", 0), step("FAILED", 0.01, retry_in_s=9000),
        step("PROCESSING", 9999), step("COMPLETED", 9999.02),
    ])  # fmt: skip
    bars = timeline.bars(found, AT, at(10_000))
    assert all(bar.run >= 0.6 and bar.left >= 0 and bar.left + bar.wait + bar.run <= 100.01 for bar in bars)
    assert timeline.bars([], AT, AT) == []
