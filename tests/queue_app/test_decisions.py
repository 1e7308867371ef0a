from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_app import payloads, retry, secret_fields, states, unique
from queue_app.retry import DeadLetter, Decision, Discard, Retry, RetryBudget, RetryPolicy, Rules
from queue_app.states import State
from queue_app.window import LONG_S, Window
from queue_app.worker.prefetch import Prefetch

SECONDS = st.floats(min_value=0, max_value=3600)


def decide(error: BaseException, **given: Any) -> Decision:
    usual: dict[str, Any] = {"attempt": 1, "max_attempts": 4, "rules": Rules(), "base_s": 2, "max_s": 60}
    return retry.decide(error, **(usual | {"jitter": 0.5, "budget": None, "now": 0.0} | given))


@given(attempt=st.integers(1, 5000), base_s=SECONDS, max_s=SECONDS, jitter=st.floats(0, 1, exclude_max=True))
def test_decide__any_attempt__waits_between_zero_and_the_maximum(attempt, base_s, max_s, jitter):
    found = decide(
        OSError(), attempt=attempt, max_attempts=attempt + 1, base_s=base_s, max_s=max_s, jitter=jitter
    )
    assert found.state == State.FAILED
    assert 0 <= found.delay_s <= max_s


def test_decide__last_attempt__is_a_dead_letter():
    assert decide(OSError(), attempt=3) == (State.FAILED, 0.5 * 8, "")
    assert decide(OSError(), attempt=4) == (State.DEAD_LETTER, None, "last run")


def test_decide__handler_says_what_to_do__is_done():
    assert decide(Retry(after=7.5)) == (State.FAILED, 7.5, "")
    assert decide(Retry(after=timedelta(minutes=2))).delay_s == 120
    assert decide(Retry("again")).delay_s == 1
    assert decide(Retry(after=7.5), attempt=4).state == State.DEAD_LETTER
    assert decide(Discard("gone")) == (State.CANCELLED, None, "gone")
    assert decide(DeadLetter("never")) == (State.DEAD_LETTER, None, "not retried")


@pytest.mark.parametrize("after", [-1, float("inf"), float("nan"), timedelta(seconds=-1)])
def test_retry__no_wait__is_refused(after):
    with pytest.raises(ValueError, match="not a wait"):
        Retry(after=after)


def test_decide__rules_by_exception__the_nearer_class_wins():
    rules = retry.rules(
        {OSError: RetryPolicy(backoff_base_s=10), TimeoutError: RetryPolicy(max_retries=1)}, []
    )
    assert decide(ConnectionError(), rules=rules).delay_s == 5
    assert decide(TimeoutError(), rules=rules).delay_s == 1
    assert decide(TimeoutError(), rules=rules, attempt=2).state == State.DEAD_LETTER
    assert decide(KeyError(), rules=rules).state == State.DEAD_LETTER
    rules = retry.rules(None, [OSError])
    assert decide(ConnectionError(), rules=rules).reason == "not retried"
    assert decide(KeyError(), rules=rules).state == State.FAILED
    assert decide(Retry(after=1), rules=rules).delay_s == 1
    rules = retry.rules([ConnectionError], [OSError])
    assert decide(ConnectionResetError(), rules=rules).state == State.FAILED
    assert decide(TimeoutError(), rules=rules).state == State.DEAD_LETTER


def test_rules__no_exception__is_refused():
    with pytest.raises(TypeError, match="not an exception class"):
        retry.rules(["OSError"], [])


def test_budget__spent__retries_wait_longest_until_the_window_has_passed():
    budget = RetryBudget(0.1)
    for _ in range(200):
        budget.ran(0.0)
    waits = [decide(OSError(), budget=budget, now=1.0) for _ in range(21)]
    assert [found.delay_s for found in waits] == [1.0] * 20 + [45.0]
    assert waits[20].reason == "over the retry budget"
    assert decide(Retry(after=3), budget=budget, now=1.0).delay_s == 3
    later = [decide(OSError(), budget=budget, now=62.0).delay_s for _ in range(11)]
    assert later == [1.0] * 10 + [45.0]  # no runs in this window: the reserve


def test_longest_delay_s__attempts__double_up_to_the_maximum():
    waits = [retry.longest_delay_s(attempt, base_s=1, max_s=5) for attempt in (1, 2, 3, 4)]
    assert waits == [1, 2, 4, 5]


@pytest.mark.parametrize("over", [State.COMPLETED, State.CANCELLED])
def test_transitions__finished_job__goes_nowhere(over):
    for state in State:
        with pytest.raises(states.WrongTransition):
            states.check(over, state)


def test_sources__processing__are_the_waiting_states():
    assert states.sources(State.PROCESSING) == {State.PENDING, State.FAILED}


def test_may_be_claimed__processing__by_its_owner_only():
    assert states.may_be_claimed(State.PROCESSING, is_owner=True)
    assert not states.may_be_claimed(State.PROCESSING, is_owner=False)
    waiting = {state for state in State if states.may_be_claimed(state, is_owner=False)}
    assert waiting == {State.PENDING, State.FAILED}


def nested(levels: int) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for _ in range(levels - 1):
        payload = {"in": payload}
    return payload


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ([1], "a payload is a dict, not a list"),
        ({1: "x"}, "a key is a int"),
        ({"list": [{"in": {None: "x"}}]}, "a key is a NoneType"),
        ({"when": object()}, "not JSON"),
        ({"x": float("nan")}, "not JSON"),
        ({"text": "x" * 100}, "bytes of JSON, at most 64"),
        ({"text": "\u00fc" * 30}, "71 bytes of JSON"),
        ({"text": "\0"}, "NUL"),
        ({"text": "\\\0"}, "NUL"),
        ({"text": "\ud800"}, "surrogate"),
        (nested(101), "more than 100 levels"),
    ],
)
def test_accept__cannot_be_stored__says_why(payload, said):
    with pytest.raises(payloads.BadPayload, match=said):
        payloads.accept(payload, max_bytes=64)


def test_accept__inside_itself__is_refused():
    payload: dict[str, Any] = {}
    payload["me"] = [payload]
    with pytest.raises(payloads.BadPayload, match="inside itself"):
        payloads.accept(payload, max_bytes=64)


@pytest.mark.parametrize(
    "payload", [{"text": r"\u0000 \ud800"}, {"text": "ü😀"}, {"a": [1, (2, {})]}, nested(100)]
)
def test_accept__unusual_but_json__comes_back_equal(payload):
    text = payloads.accept(payload, max_bytes=10_000)
    assert payloads.parse(text) == json.loads(json.dumps(payload))


SECRETS = {"card": {"number": "4111", "name": "Ada"}, "items": [{"pin": 1}, {"pin": None}, 3], "plain": "x"}
PATHS = ("card.number", "items.pin", "not.there", "plain.deeper")


def test_secret_fields__sealed__masked_for_people_and_opened_for_the_handler():
    sealed = secret_fields.seal(SECRETS, PATHS, lambda text: text[::-1])
    assert SECRETS["card"]["number"] == "4111"
    assert "4111" not in json.dumps(sealed)
    mask = secret_fields.MASK
    assert secret_fields.mask(sealed) == {
        "card": {"number": mask, "name": "Ada"},
        "items": [{"pin": mask}, {"pin": mask}, 3],
        "plain": "x",
    }
    assert secret_fields.unseal(sealed, PATHS, lambda text: text[::-1]) == SECRETS
    assert (
        secret_fields.unseal(SECRETS, PATHS, lambda text: text[::-1]) == SECRETS
    )  # stored before it was declared


def test_secret_fields__somebody_elses_sealed_value__is_sealed_again_and_not_opened():
    stolen = {"card": {"number": {"$sealed": "1114"}}}
    sealed = secret_fields.seal(stolen, PATHS, lambda text: text[::-1])
    assert secret_fields.unseal(sealed, PATHS, lambda text: text[::-1]) == stolen


@pytest.mark.parametrize("given", ["", " a", "a" * 201, 3, None, "a\0", lambda payload: 7])
def test_unique__bad_key__is_refused(given):
    with pytest.raises(unique.BadUnique, match="a key"):
        unique.Unique(given).keys([{}])


@pytest.mark.parametrize(("for_s", "debounce_s"), [(1, 1), (0, None), (None, -1), (float("inf"), None)])
def test_unique__bad_window__is_refused(for_s, debounce_s):
    with pytest.raises(unique.BadUnique):
        unique.terms(unique.Unique("key", for_s, debounce_s))


@pytest.mark.parametrize("value", [-1, 10, True, "3", 2.0])
def test_priority__off_the_scale__is_refused(value):
    with pytest.raises(ValueError, match="whole number from 0 to 9"):
        states.priority(value)


def test_window__short_jobs_then_a_long_one__grows_by_and_by_and_shrinks_at_once():
    window = Window(4)
    assert window.size == 8
    for _ in range(50):
        window.observe(0.0005)
    assert window.size == 256
    window.observe(3.0)
    assert window.size == 8
    window.observe(LONG_S)
    assert window.size == 4  # none that would wait for so long


def prefetching(driver: str, *, is_off: bool = False) -> SimpleNamespace:
    """A consumer of Celery's that counts how often it began anew."""
    qos = SimpleNamespace(value=4, update=lambda: None)
    qos.increment_eventually = lambda n: setattr(qos, "value", qos.value + n)
    qos.decrement_eventually = lambda n: setattr(qos, "value", qos.value - n)
    begun: list[int] = []
    return SimpleNamespace(
        qos=qos,
        begun=begun,
        app=SimpleNamespace(conf=SimpleNamespace(worker_disable_prefetch=is_off)),
        initial_prefetch_count=4,
        connection=SimpleNamespace(transport=SimpleNamespace(driver_type=driver)),
        task_consumer=SimpleNamespace(cancel=lambda: None, consume=lambda: begun.append(qos.value)),
        call_soon=lambda act, *arguments: act(*arguments),
    )


def test_prefetch__rabbitmq__begins_anew_for_a_real_change_only():
    consumer, window = prefetching("amqp"), Window(4)
    prefetch = Prefetch(consumer, [window])
    for took_s, size in ((0.01, 40), (0.007, 40), (0.0001, 256), (60, 4)):
        for _ in range(60):
            window.observe(took_s)
        prefetch.fit()
        assert consumer.qos.value == size
    assert consumer.begun == [40, 256, 4]


def test_prefetch__rabbitmq_and_switched_off__stays_at_a_message_a_slot():
    consumer, window = prefetching("amqp", is_off=True), Window(4)
    prefetch = Prefetch(consumer, [window])
    for _ in range(60):
        window.observe(0.0001)
    prefetch.fit()
    assert (consumer.qos.value, consumer.begun) == (4, [])


def test_prefetch__two_kinds_of_tasks__the_smaller_window_decides_while_both_work():
    consumer = prefetching("redis")
    qos = consumer.qos
    short, long = Window(4), Window(4)
    prefetch = Prefetch(consumer, [short, long])
    prefetch.fit()
    assert qos.value == 4  # nothing was seen
    short.observe(0.0001)
    prefetch.fit()
    assert qos.value == 256
    short.observe(0.0001)
    long.observe(60)
    prefetch.fit()
    assert qos.value == 4
    assert consumer.begun == []
