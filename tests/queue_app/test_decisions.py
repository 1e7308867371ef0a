from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_app import payloads, retry, states
from queue_app.states import State

SECONDS = st.floats(min_value=0, max_value=3600)


@given(attempt=st.integers(1, 5000), base_s=SECONDS, max_s=SECONDS, jitter=st.floats(0, 1, exclude_max=True))
def test_next_delay_s__any_attempt__stays_between_zero_and_the_maximum(attempt, base_s, max_s, jitter):
    delay_s = retry.next_delay_s(attempt, attempt + 1, base_s=base_s, max_s=max_s, jitter=jitter)
    assert 0 <= delay_s <= max_s


def test_longest_delay_s__attempts__double_up_to_the_maximum():
    waits = [retry.longest_delay_s(attempt, base_s=1, max_s=5) for attempt in (1, 2, 3, 4)]
    assert waits == [1, 2, 4, 5]


def test_next_delay_s__last_attempt__is_none():
    assert retry.next_delay_s(4, 4, base_s=1, max_s=60, jitter=0.5) is None
    assert retry.next_delay_s(3, 4, base_s=1, max_s=60, jitter=0.5) == 2


@pytest.mark.parametrize("over", [State.COMPLETED, State.CANCELLED])
def test_transitions__finished_job__goes_nowhere(over):
    for state in State:
        with pytest.raises(states.WrongTransition):
            states.check(over, state)


def test_sources__processing__are_the_waiting_states():
    assert states.sources(State.PROCESSING) == {State.PENDING, State.FAILED}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ([1], "a payload is a dict, not a list"),
        ({1: "x"}, "a key is a int"),
        ({"when": object()}, "not JSON"),
        ({"x": float("nan")}, "not JSON"),
        ({"text": "x" * 100}, "bytes of JSON, at most 64"),
        ({"text": "\0"}, "NUL"),
    ],
)
def test_accept__cannot_be_stored__says_why(payload, said):
    with pytest.raises(payloads.BadPayload, match=said):
        payloads.accept(payload, max_bytes=64)


@pytest.mark.parametrize("value", [-1, 10, True, "3", 2.0])
def test_priority__off_the_scale__is_refused(value):
    with pytest.raises(ValueError, match="whole number from 0 to 9"):
        states.priority(value)
