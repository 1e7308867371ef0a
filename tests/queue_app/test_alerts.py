"""The decisions about alerts, as tables: what is seen, how an alert goes on, what is said of it, what a rule may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queue_app import alerts, notice_delivery
from queue_app.alerts import Condition, Kind, Minute, Rule, Sight, Standing, State

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
RULE = Rule(1, "late", Condition.LATENCY, 60.0, for_s=30.0, clear_s=20.0, repeat_s=100.0)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def play(rule: Rule, script: list[tuple[float, float | None, bool]]) -> list[tuple[str, str]]:
    """script: (second, value, is silenced) of each look → (state, notice) after it; "-" for none."""
    standing: Standing | None = None
    told = []
    for second, value, is_silenced in script:
        standing, kind = alerts.step(rule, standing, value, at(second), is_silenced=is_silenced)
        told.append((str(standing.state) if standing else "-", str(kind or "-")))
        if standing and kind in (Kind.FIRING, Kind.REMINDER):
            standing = alerts.told(standing, at(second))
        if standing and standing.state == State.RESOLVED:
            standing = None
    return told


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param([(0, 59.9, False)], ["- -"], id="calm"),
        pytest.param([(0, 60, False), (29, 90, False)], ["pending -", "pending -"], id="not long enough"),
        pytest.param(
            [(0, 60, False), (15, 1, False), (16, 60, False), (31, 60, False)],
            ["pending -", "- -", "pending -", "pending -"],
            id="a dip begins it anew",
        ),
        pytest.param(
            [
                (0, 60, False),
                (30, 61, False),
                (45, 61, False),
                (60, None, False),
                (79, 0, False),
                (80, 0, False),
            ],
            ["pending -", "firing firing", "firing -", "firing -", "firing -", "resolved resolved"],
            id="fires once and clears late",
        ),
        pytest.param(
            [
                (0, 60, False),
                (30, 61, False),
                (40, 1, False),
                (55, 61, False),
                (70, 1, False),
                (89, 1, False),
            ],
            ["pending -", "firing firing", "firing -", "firing -", "firing -", "firing -"],
            id="flaps without a word",
        ),
        pytest.param(
            [
                (0, 60, False),
                (30, 61, False),
                (129, 61, False),
                (130, 61, False),
                (131, 61, False),
                (230, 61, False),
            ],
            ["pending -", "firing firing", "firing -", "firing reminder", "firing -", "firing reminder"],
            id="reminds",
        ),
        pytest.param(
            [(0, 60, True), (30, 61, True), (200, 61, True), (201, 61, False), (202, 61, False)],
            ["pending -", "firing -", "firing -", "firing firing", "firing -"],
            id="silenced, told at its end",
        ),
        pytest.param(
            [(0, 60, True), (30, 61, True), (40, 0, True), (60, 0, True)],
            ["pending -", "firing -", "firing -", "resolved -"],
            id="nobody was told, nobody is told of the end",
        ),
        pytest.param(
            [(0, 60, False), (30, 61, False), (31, 61, True), (40, 0, True), (60, 0, True)],
            ["pending -", "firing firing", "firing -", "firing -", "resolved resolved"],
            id="who was told is told of the end in a silence too",
        ),
        pytest.param([(0, 60, False), (-500, 61, False)], ["pending -", "pending -"], id="a clock set back"),
    ],
)
def test_step__script__goes_as_the_table_says(script, expected):
    assert [" ".join(pair) for pair in play(RULE, script)] == expected


def test_step__for_and_clear_and_repeat_of_nothing__fires_and_clears_at_once_and_never_reminds():
    rule = replace(RULE, for_s=0.0, clear_s=0.0, repeat_s=0.0)
    script = [(0, 60.0, False), (9e6, 60.0, False), (9e6 + 1, 0.0, False)]
    assert play(rule, script) == [("firing", "firing"), ("firing", "-"), ("resolved", "resolved")]


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing(State.PENDING, NOON, 1.0), (None, None)),
        (Standing(State.FIRING, NOON, 1.0, fired_at=NOON), (State.RESOLVED, None)),
        (Standing(State.FIRING, NOON, 1.0, fired_at=NOON, told_at=NOON), (State.RESOLVED, Kind.RESOLVED)),
    ],
)
def test_end__rule_gone__resolved_and_told_to_whoever_was_told(standing, expected):
    found, kind = alerts.end(standing)
    assert (found and found.state, kind) == expected


SIGHT = Sight(
    waited_s={"mail": 75.0, "pay": 5.0},
    consumed={"mail"},
    minutes={
        "mail": [Minute(at(-660), 50, 50, 50), Minute(at(-600), 4, 1, 1), Minute(at(-60), 6, 4, 2)],
        "pay": [Minute(at(-60), 3, 3, 0)],
    },
    dead={"mail": 7},
    overdue_s=0.0,
    recorder_s=12.0,
)


@pytest.mark.parametrize(
    ("condition", "more", "expected"),
    [
        (Condition.LATENCY, {}, {"mail": 75.0, "pay": 5.0}),
        (Condition.NO_WORKER, {}, {"pay": 5.0}),
        (Condition.FAILURES, {"at_least": 10}, {"mail": 0.5}),
        (Condition.FAILURES, {"at_least": 3}, {"mail": 0.5, "pay": 1.0}),
        (Condition.NEW_DEAD, {}, {"mail": 3.0, "pay": 0.0}),
        (Condition.NEW_DEAD, {"window_s": 60}, {"mail": 2.0, "pay": 0.0}),
        (Condition.DEAD, {}, {"mail": 7.0}),
        (Condition.SCHEDULE, {}, {"": 0.0}),
        (Condition.RECORDER, {}, {"": 12.0}),
        (Condition.LATENCY, {"queue": "pay"}, {"pay": 5.0}),
    ],
)
def test_values__each_condition__by_subject(condition, more, expected):
    rule = Rule(1, "r", condition, 1.0, **more)
    assert alerts.values(rule, [rule], SIGHT, NOON) == expected


@pytest.mark.parametrize("condition", list(Condition))
def test_values__could_not_be_seen__nobody_can_say(condition):
    rule = Rule(1, "r", condition, 1.0)
    assert alerts.values(rule, [rule], Sight(), NOON) is None


def test_values__another_rule_names_the_queue__it_alone_is_about_it():
    general, own = (
        Rule(1, "all", Condition.LATENCY, 60.0),
        Rule(2, "own", Condition.LATENCY, 600.0, queue="mail"),
    )
    other = Rule(3, "dead", Condition.DEAD, 1.0, queue="pay")
    rules = [general, own, other]
    assert alerts.values(general, rules, SIGHT, NOON) == {"pay": 5.0}
    assert alerts.values(own, rules, SIGHT, NOON) == {"mail": 75.0}


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        (
            Condition.LATENCY,
            75.0,
            "mail: the oldest due job has waited 1 minute 15 seconds (rule: 30 seconds)",
        ),
        (
            Condition.NO_WORKER,
            75.0,
            "mail: no living worker consumes it, and a job has waited 1 minute 15 seconds",
        ),
        (Condition.FAILURES, 0.5, "mail: 50% of the runs in the last 10 minutes failed"),
        (Condition.NEW_DEAD, 30.0, "mail: 30 dead letters in the last 10 minutes (rule: 30)"),
        (Condition.DEAD, 31.0, "mail: 31 dead letters (rule: 30)"),
        (Condition.DEAD, 1.0, "mail: 1 dead letter (rule: 30)"),
    ],
)
def test_words__each_condition__need_no_other_line(condition, value, expected):
    assert alerts.words(Rule(1, "r", condition, 30.0), "mail", value).startswith(expected)


def test_words__about_no_queue__begin_with_what_it_is():
    assert alerts.words(Rule(1, "r", Condition.RECORDER, 30.0), "", 90.0).startswith(
        "the recorder is 1 minute 30"
    )


def item(kind: Kind, queue: str = "mail") -> dict[str, Any]:
    return {"rule": "late", "queue": queue, "kind": str(kind), "words": f"{queue}: waits", "since": "then"}


def test_document__some_fire_and_some_are_over__one_message_that_says_firing():
    found = alerts.document("id", NOON, [item(Kind.RESOLVED), item(Kind.REMINDER, "pay")])
    assert (found["id"], found["status"], found["more"], found["version"]) == ("id", "firing", 0, 1)
    assert found["text"] == "RESOLVED late: mail: waits\nREMINDER late: pay: waits"
    assert alerts.title(found) == "[FIRING 2] late: mail, late: pay"
    assert "late: since then" in alerts.letter(found)
    over = alerts.document("id", NOON, [item(Kind.RESOLVED)])
    assert (over["status"], alerts.title(over)) == ("resolved", "[RESOLVED] late: mail")


def test_document__a_storm__names_a_hundred_and_counts_the_rest():
    found = alerts.document("id", NOON, [item(Kind.FIRING, f"q{n}") for n in range(250)])
    assert (len(found["alerts"]), found["more"]) == (alerts.MOST_NAMED, 150)
    assert found["text"].endswith("\nand 150 more")
    assert alerts.title(found) == "[FIRING 250] late: q0, late: q1, late: q2, …"


def test_signature__other_time_or_body_or_secret__is_another():
    known = notice_delivery.signature("secret", 1_700_000_000, b"{}")
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
    assert known == "sha256=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    others = {
        notice_delivery.signature("other", 1_700_000_000, b"{}"),
        notice_delivery.signature("secret", 1_700_000_001, b"{}"),
        notice_delivery.signature("secret", 1_700_000_000, b"{} "),
    }
    assert len(others | {known}) == 4


def test_channel_name__secret_in_the_path__is_not_in_it():
    name = notice_delivery.channel_name("https://hooks.example.com/services/T0/B0/secret?token=x")
    assert name.startswith("hooks.example.com#")
    assert "secret" not in name
    assert name != notice_delivery.channel_name("https://hooks.example.com/services/T0/B0/other")


def test_retry__more_and_more_rarely__and_given_up_after_an_hour():
    waits = []
    while (wait_s := notice_delivery.retry_s(len(waits) + 1)) is not None:
        waits.append(wait_s)
    assert waits == sorted(waits)
    assert 3600 <= sum(waits) < 7200


def test_retry__receiver_asks_for_more__waits_as_long_an_hour_at_most_and_never_less():
    assert notice_delivery.retry_s(1, 90.0) == 90
    assert notice_delivery.retry_s(1, 1.0) == notice_delivery.retry_s(1)
    assert notice_delivery.retry_s(1, 1e9) == 3600
    assert notice_delivery.retry_s(99, 90.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("Sat, 10 Oct 2026 12:02:00 GMT", 120),
        ("Sat, 10 Oct 2026 12:02:00 -0000", 120),
        ("Sat, 10 Oct 2026 11:00:00 GMT", 0),
        ("-5", 0),
        ("soon", 0),
        ("", 0),
        ("1" * 40, 111_111_111),
    ],
)
def test_retry_after__seconds_or_a_date_or_nonsense(header, seconds):
    assert notice_delivery.asked_s(header, datetime(2026, 10, 10, 12, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        (400, True),
        (404, True),
        (410, True),
        (408, False),
        (425, False),
        (429, False),
        (302, False),
        (500, False),
    ],
)
def test_refusal__status__final_or_only_for_now(status, is_final):
    assert notice_delivery.is_final(status) is is_final


def test_in_turn__alerts_in_common__wait_for_the_oldest_and_the_others_go():
    unsent = [("a", {1}), ("b", {2, 3}), ("c", {1, 4}), ("d", {4}), ("e", {5}), ("f", set())]
    assert notice_delivery.in_turn(unsent) == ["a", "b", "e", "f"]


FIELDS: dict[str, Any] = {
    "name": "late", "condition": "latency", "queue": "", "threshold": 60, "window_s": 600, "at_least": 1,
    "for_s": 60, "clear_s": 60, "repeat_s": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": None}, "name"),
        ({"condition": "slow"}, "condition"),
        ({"condition": "recorder", "queue": "mail"}, "queue"),
        ({"queue": None}, "queue"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
        ({"threshold": "60"}, "threshold"),
        ({"condition": "failures", "threshold": 1.1}, "threshold"),
        ({"window_s": 59}, "window_s"),
        ({"window_s": 86_401}, "window_s"),
        ({"at_least": 0}, "at_least"),
        ({"for_s": -1}, "for_s"),
        ({"clear_s": 1.5}, "clear_s"),
        ({"repeat_s": None}, "repeat_s"),
    ],
)
def test_problems__bad_field__named_alone(bad, field):
    assert list(alerts.problems(FIELDS | bad)) == [field]


def test_problems__good_fields__none():
    assert alerts.problems(FIELDS) == {}
    assert alerts.problems(FIELDS | {"condition": "failures", "threshold": 1}) == {}
