"""The gateway's drills: which ones a choice means, their verdicts with wrong outcomes, and one of them through the real command."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from . import gateway
from .gateway.liars import CUT, LIES, MALFORMED, WHOLE
from .gateway.lies import is_told
from .gateway.rig import Rig
from .gateway.stores import BURST, LEASE, RATE, WORKERS, counted
from .gateway.targets import BEGUN, UNREPEATABLE
from .gateway.verdict import Excuse, Fate, judge, over_admitted, percentile, took_effect_s
from .outcome import Broken

ROOT = Path(__file__).resolve().parents[2]
GOOD = Fate("a", "GET", told="a")
CUT_OFF = Fate("a", "GET", is_whole=False, fault="cut")
REFUSED = Fate("a", "GET", 502, "connect_failed")
LOST_POST = Fate("a", "POST", 502, "upstream_closed")


def test_chosen__first_words_or_whole_names__are_found() -> None:
    assert len(gateway.chosen(None)) >= 12
    names = {drill.name for drill in gateway.chosen("target,database-stopped-sqlite")}
    assert names == {"target-killed", "target-stopped", "database-stopped-sqlite"}
    with pytest.raises(Broken, match="no drill is called 'kill'"):
        gateway.chosen("kill")


@pytest.mark.parametrize(
    ("fate", "runs", "expected"),
    [
        (GOOD, 1, (0, 0, 0)),
        (GOOD, 2, (0, 0, 0)),  # idempotent: it may have been sent again
        (replace(GOOD, method="POST"), 2, (0, 1, 0)),
        (REFUSED, 0, (1, 0, 0)),
        (replace(GOOD, status=0, told="", is_whole=False, fault="closed"), 1, (1, 0, 0)),
        (replace(GOOD, told=""), 1, (1, 0, 0)),
        (CUT_OFF, 1, (0, 0, 1)),
        (LOST_POST, 1, (0, 0, 1)),
        (LOST_POST, 2, (0, 1, 1)),
        (
            replace(LOST_POST, code="connect_failed"),
            0,
            (1, 0, 0),
        ),  # nothing was written: it could have been sent again
        (replace(LOST_POST, method="GET"), 1, (1, 0, 0)),
    ],
)
def test_judge__what_became_of_one_request__is_counted(
    fate: Fate, runs: int, expected: tuple[int, int, int]
) -> None:
    found = judge([fate], {"a": runs}, [BEGUN, UNREPEATABLE])
    assert (found.lost, found.duplicated, found.failed) == expected
    assert bool(found.problems) == bool(expected[0] or expected[1])


def test_judge__evidence_contradicts_itself__is_a_problem() -> None:
    assert (
        judge([replace(GOOD, told="b")], {"a": 1}).problems[1].startswith("1 answered with another's answer")
    )
    assert judge([GOOD], {}).problems == ("1 answered without a target: 1 × GET 200 (such as a)",)


def test_judge__excuses__count_by_the_first_that_holds() -> None:
    excuses = [Excuse("refused", lambda fate: fate.status == 429), Excuse("any", lambda fate: True)]
    found = judge([Fate("a", "GET", 429), Fate("b", "GET", 500), Fate("c", "GET", 429)], {}, excuses)
    assert (found.failed, found.excused) == (3, {"refused": 2, "any": 1})


@pytest.mark.parametrize(("admitted", "allowed", "over"), [(510, 510.9, 0), (511, 510.9, 1), (0, 510.0, 0)])
def test_over_admitted__whole_tokens_only(admitted: int, allowed: float, over: int) -> None:
    assert over_admitted(admitted, allowed) == over


def test_percentile__nearest_rank() -> None:
    assert percentile([], 99) == 0.0
    assert [percentile([4.0, 1.0, 3.0, 2.0], share) for share in (0, 50, 75, 76, 100)] == [
        1.0,
        2.0,
        3.0,
        4.0,
        4.0,
    ]


def test_took_effect_s__first_answer_of_the_new_one_and_last_request_of_the_old() -> None:
    def asked(mark: str, at: float) -> Fate:
        return Fate("a", "GET", mark=mark, at=at, until=at + 0.1)

    fates = [asked("1", 9.0), asked("2", 10.1), asked("1", 10.5), asked("3", 11.0), asked("", 12.0)]
    assert took_effect_s(fates, "2", 10.0) == pytest.approx((0.2, 0.5))
    assert took_effect_s(fates, "3", 10.0) == pytest.approx((1.1, 1.1))
    assert took_effect_s(fates, "4", 10.0) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("fate", "truth", "expected"),
    [
        (GOOD, WHOLE, True),
        (replace(GOOD, told="EVIL"), WHOLE, False),
        (replace(GOOD, until=60.0), WHOLE, False),
        (CUT_OFF, WHOLE, False),
        (CUT_OFF, CUT, True),
        (replace(CUT_OFF, status=0), CUT, False),
        (replace(CUT_OFF, fault="no answer in time"), CUT, False),
        (replace(GOOD, status=502, code="upstream_malformed"), MALFORMED, True),
        (replace(GOOD, status=502, code="upstream_closed"), MALFORMED, False),
        (GOOD, MALFORMED, False),
    ],
)
def test_is_told__of_a_lie__the_truth_and_in_time(fate: Fate, truth: str, expected: bool) -> None:
    assert is_told(fate, truth) is expected
    assert all(lie.truth for lie in LIES.values())


def answered(count: int, status: int) -> list[Fate]:
    return [
        Fate(str(n), "GET", status, told=str(n) if status == 200 else "", until=1.0) for n in range(count)
    ]


@pytest.mark.parametrize(("more", "refused", "problems"), [(0, 100, 0), (1, 100, 1), (0, 0, 1), (1, 0, 1)])
def test_counted__too_many_admitted_or_too_few_asked__is_a_claim(
    more: int, refused: int, problems: int
) -> None:
    rig = a_rig()
    most = BURST + 10 * RATE + WORKERS * LEASE
    counted(rig, answered(most + more, 200) + answered(refused, 429), (0.0, 10.0), "local")
    assert len(rig.claims) == problems


@pytest.mark.parametrize(
    ("claim", "recovered_s", "lost", "passed"),
    [
        (True, 1.0, 0, True),
        (False, 1.0, 0, False),
        (True, 31.0, 0, False),
        (True, None, 0, False),
        (True, 1.0, 1, False),
    ],
)
def test_outcome__one_thing_did_not_hold__failed(
    tmp_path: Path, claim: bool, recovered_s: float | None, lost: int, passed: bool
) -> None:
    rig = a_rig(tmp_path)
    (tmp_path / "seen").write_text("a\n")
    rig.claim(claim, "something else")
    fates = [GOOD, *[replace(REFUSED, id=f"b{n}") for n in range(lost)]]
    outcome = rig.outcome("note", fates, recovered_s=recovered_s)
    assert (outcome.passed, outcome.lost) == (passed, lost)
    assert ("PROBLEM" in outcome.note) is not passed


def a_rig(home: Any = None) -> Rig:
    store = SimpleNamespace(url="")
    return Rig("drill", quick=True, home=home, database_url="", store=store, limit_s=1.0)  # type: ignore[arg-type]


@pytest.mark.slow
def test_command__lying_targets__prints_what_the_checker_found() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.drills",
        "gateway",
        "--only",
        "lying-targets",
        "--quick",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    (outcome,) = json.loads(done.stdout)
    assert {"drill", "lost", "duplicated", "failed", "recovered_s", "passed"} == set(outcome)
    assert (done.returncode, outcome["passed"]) == (0, True), done.stderr
