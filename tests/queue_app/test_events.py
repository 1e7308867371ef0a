"""Folding events into rows: any order, any repetition, never backwards."""

from __future__ import annotations

import itertools
import json
from typing import Any
from uuid import UUID

import pytest

from queue_app.broker import events
from queue_app.broker.events import About, Event, Folded, Standing, fold
from queue_app.states import State

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
W1, W2 = "w-1", "w-2"
ABOUT = list(About("t.name", "default", "acme", 3, '{"args": []}', "r-1", 4, None, None, None))
ERROR = {"type": "OSError", "message": "no", "traceback": ""}


def pending(at: float = 1.0) -> Event:
    return [events.PENDING, ID, 1, at, ABOUT]


def started(attempt: int = 1, at: float = 2.0, *, redelivered: bool = False) -> Event:
    return [events.STARTED, ID, attempt, at, None, redelivered]


def end(
    kind: int, attempt: int = 1, at: float = 3.0, started_at: float | None = 2.0, told: Any = None
) -> Event:
    return [kind, ID, attempt, at, None, False, started_at, told]


def folded(*told: Event, standing: Standing | None | str = "", worker: str = W1) -> Folded:
    return fold([(worker, event) for event in told], {} if standing == "" else {ID: standing})  # type: ignore[dict-item]


def states(found: Folded) -> list[str]:
    return [step.state for step in found.steps]


def test_fold__pending_then_end__one_new_row_with_its_whole_history() -> None:
    found = folded(pending(), end(events.COMPLETED, told="{'a': 1}"))
    row = found.rows[ID]
    assert (row.is_new, row.state, row.attempt, row.owner) == (True, "COMPLETED", 1, W1)
    assert (row.created_at, row.started_at, row.finished_at) == (1.0, 2.0, 3.0)
    assert json.loads(row.result or "") == {"a": 1}
    assert row.about == About(*ABOUT)
    assert states(found) == ["PENDING", "PROCESSING", "COMPLETED"]


def test_fold__every_order_of_one_life__ends_in_the_same_row() -> None:
    life = [
        pending(),
        end(events.FAILED, 1, 3.0, 2.0, {"error": ERROR, "run_after": 4.0}),
        started(2, 4.0),
        end(events.COMPLETED, 2, 5.0, 4.0, "7"),
    ]
    for order in itertools.permutations(life):
        row = folded(*order).rows[ID]
        assert (row.state, row.attempt, row.result, row.finished_at) == ("COMPLETED", 2, "7", 5.0), order
        assert row.about is not None


def test_fold__everything_twice__changes_nothing() -> None:
    life = [pending(), started(), end(events.FAILED, told={"error": ERROR, "run_after": 4.0})]
    once, twice = folded(*life), folded(*life, *life)
    assert once == twice
    assert folded(*life, pending(), started(), life[2]) == once


def test_fold__failed_run__waits_until_its_time_and_keeps_the_error() -> None:
    row = folded(pending(), end(events.FAILED, told={"error": ERROR, "run_after": 9.0})).rows[ID]
    assert (row.state, row.run_after, row.finished_at, row.attempt) == ("FAILED", 9.0, None, 1)
    assert json.loads(row.error or "") == ERROR


def test_fold__late_start_of_a_completed_job__does_not_reopen_it() -> None:
    done = Standing(State.COMPLETED, 1, 0, W1, 2.0, True)
    found = folded(started(1, 2.0), started(2, 9.0), standing=done)
    assert not found.rows[ID].is_changed
    assert found.steps == []


def test_fold__end_of_the_run_before_comes_late__history_has_no_gap() -> None:
    found = folded(
        pending(), started(1), started(2, 4.0), end(events.FAILED, told={"error": ERROR, "run_after": 3.0})
    )
    assert states(found) == ["PENDING", "PROCESSING", "FAILED", "PROCESSING"]
    assert found.rows[ID].state == "PROCESSING"


def test_fold__same_attempt_on_another_worker__counts_a_crash() -> None:
    running = Standing(State.PROCESSING, 0, 0, W1, 2.0, True)
    found = folded(started(1, 60.0, redelivered=True), standing=running, worker=W2)
    row = found.rows[ID]
    assert (row.state, row.crash_count, row.owner, row.started_at) == ("PROCESSING", 1, W2, 60.0)
    assert json.loads(found.steps[0].detail) == {"reason": "delivered again", "redelivered": True}
    again = folded(started(1, 2.001), standing=running)  # the database keeps milliseconds
    assert not again.rows[ID].is_changed


def test_fold__job_of_the_ledger__is_left_alone() -> None:
    assert folded(pending(), end(events.COMPLETED), standing=None) == Folded()


def test_fold__revoked_before_it_started__is_cancelled() -> None:
    found = folded(pending(), end(events.CANCELLED, started_at=None, told="revoked"))
    assert (found.rows[ID].state, found.rows[ID].attempt) == ("CANCELLED", 0)
    assert states(found) == ["PENDING", "CANCELLED"]


def test_fold__row_made_without_its_publication__is_named_when_that_comes() -> None:
    unnamed = Standing(State.COMPLETED, 1, 0, W1, 2.0, False)
    found = folded(pending(), standing=unnamed)
    assert found.rows[ID].about is not None
    assert found.rows[ID].state == "COMPLETED"
    assert states(found) == ["PENDING"]


@pytest.mark.parametrize(
    ("shown", "stored"),
    [
        ("None", None),
        ("3", 3),
        ("'a b'", "a b"),
        ("{'a': [1, 2.5]}", {"a": [1, 2.5]}),
        ("(1, None, True)", [1, None, True]),
        ('"it\'s"', "it's"),
        ("<object at 0x1>", {"repr": "<object at 0x1>"}),
        ("nan", {"repr": "nan"}),
        ("'\\x00'", {"repr": "'\\x00'"}),
        ("'\\ud800'", {"repr": "'\\ud800'"}),
        ("'" + "x" * 1000 + "...", {"repr": "'" + "x" * 1000 + "..."}),
    ],
)
def test_result__repr_of_a_value__is_stored_as_json_or_as_its_text(shown: str, stored: Any) -> None:
    found = events.result(shown)
    assert (None if found is None else json.loads(found)) == stored


def test_job_id__uuid_in_any_spelling_or_none__is_stable() -> None:
    assert events.job_id(ID) == ID == events.job_id(ID.upper()) == events.job_id(ID.replace("-", ""))
    assert events.job_id("nightly-report") == events.job_id("nightly-report") != events.job_id("other")
    assert UUID(events.job_id("nightly-report"))


def test_pack__event_that_is_not_utf8__leaves_the_others() -> None:
    fields = events.pack(W1, [pending(), [events.PENDING, "\ud800", 1, 1.0, ABOUT]])
    raw = {
        key.encode(): value if isinstance(value, bytes) else value.encode() for key, value in fields.items()
    }
    assert events.unpack(raw) == (W1, [pending()])


@pytest.mark.parametrize(
    "junk", [b"", b"{}", b"[1]", b"[[0,1,2,3,4]]", b'[[9,"a",1,1.0,null]]', b'[[0,"a",1,1.0,[]]]']
)
def test_unpack__what_others_wrote__is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError):
        events.unpack({b"e": junk})
