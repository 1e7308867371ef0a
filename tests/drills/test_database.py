"""The database's drills: the checkers with wrong readings, and one drill through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from . import database
from .database.rig import Rig
from .database.verdict import (
    Outage,
    Request,
    Transfer,
    books,
    held,
    isolated,
    late,
    restarted,
    uneven,
)
from .outcome import Broken

ROOT = Path(__file__).resolve().parents[2]
OUTAGE = Outage(gone=10.0, back=20.0)


def request(began: float, took_s: float = 0.1, error: str = "", name: str = "r") -> Request:
    return Request(name, began, began + took_s, error)


def test_chosen__first_words_or_whole_names__are_found() -> None:
    names = {drill.name for drill in database.chosen("restart-mariadb,disk-full-sqlite")}
    assert names == {
        "restart-mariadb-asgi",
        "restart-mariadb-async",
        "restart-mariadb-wsgi",
        "disk-full-sqlite",
    }
    with pytest.raises(Broken, match="no drill is called 'kill'"):
        database.chosen("kill")


def test_restarted__failures_while_it_is_away__are_the_outage() -> None:
    seen = restarted(
        [
            request(9.0),
            request(9.95, error="cut"),
            request(12.0, error="refused"),
            request(15.0, 6.0, "late"),
            request(20.5),
        ],
        [OUTAGE],
    )
    assert (seen.served, seen.down, seen.first, seen.later, seen.strays) == (2, 3, 0, (), ())
    assert seen.recovered_s == pytest.approx(0.6)


def test_restarted__failed_after_the_first_was_known__is_a_broken_promise() -> None:
    first, beside, after = request(20.1, 0.2, "dead"), request(20.2, 0.3, "dead"), request(20.4, 0.1, "dead")
    seen = restarted([first, beside, after, request(21.0)], [OUTAGE])
    assert (seen.first, seen.later) == (2, (after,))


def test_restarted__failed_before_anything_was_done__is_a_stray() -> None:
    stray = request(5.0, error="500")
    assert restarted([stray], [OUTAGE]).strays == (stray,)


def test_restarted__nobody_is_served_again__never_recovers() -> None:
    assert restarted([request(20.1, error="dead")], [OUTAGE]).recovered_s == float("inf")


def test_restarted__two_outages__each_has_its_own_stretch() -> None:
    second = Outage(gone=30.0, back=31.0)
    across = request(29.9, 0.3, "cut")  # began well after the first one: the second's
    again = request(31.5, 0.1, "dead")
    seen = restarted([request(20.5), across, again, request(32.0, 2.0)], [OUTAGE, second])
    assert (seen.down, seen.first, seen.later) == (1, 1, ())
    assert (seen.recovered_s, seen.slowest_s) == (pytest.approx(3.0), pytest.approx(2.0))


def test_held__acknowledged_and_gone_or_never_asked_for__are_named() -> None:
    found = held(["a", "b"], ["c"], ["b", "c", "d"])
    assert (found.lost, found.extra) == (("a",), ("d",))


def test_books__all_adds_up__nothing_is_found() -> None:
    found = books({1: 100, 2: 100}, [Transfer("t", 1, 2, 30)], {1: 70, 2: 130}, ["t"])
    assert (found.missing, found.unknown, found.wrong, found.gap_cents) == (0, 0, (), 0)


def test_books__lost_update__shows_in_the_balance_and_in_the_sum() -> None:
    ledger = [Transfer("t", 1, 2, 30), Transfer("u", 1, 2, 5)]
    found = books({1: 100, 2: 100}, ledger, {1: 95, 2: 135}, ["t", "u"])
    assert found.wrong == ("account 1: 95, by the ledger 65",)
    assert found.gap_cents == 30


def test_books__rows_and_acknowledgements_differ__both_ways_are_counted() -> None:
    found = books({1: 1, 2: 1}, [Transfer("x", 1, 2, 0)], {1: 1, 2: 1}, ["t"])
    assert (found.missing, found.unknown) == (1, 1)


@pytest.mark.parametrize(
    ("fate", "rows", "found"),
    [
        ("committed", 2, ""),
        ("committed", 1, "lost"),
        ("committed", 0, "lost"),
        ("rolled back", 0, ""),
        ("rolled back", 1, "leaked"),
        ("cancelled", 0, ""),
        ("cancelled", 2, ""),
        ("cancelled", 1, "torn"),
    ],
)
def test_isolated__rows_of_a_transaction__against_its_fate(fate: str, rows: int, found: str) -> None:
    seen = isolated({"7": fate}, ["7"] * rows)
    assert {name for name in ("lost", "leaked", "torn") if getattr(seen, name)} == (
        {found} if found else set()
    )


def test_late__too_early_and_too_late__are_counted() -> None:
    assert late([1.5, 1.95, 2.0, 2.9, 3.5], timeout_s=2.0) == 2


def test_uneven__missing_doubled_and_unknown_steps__are_named() -> None:
    assert uneven(["a", "a", "x", "c"], ["a", "b", "c"]) == ("a × 2", "b × 0", "x × 1")


def test_outcome__lost_failed_or_a_claim_that_does_not_hold__has_not_passed(tmp_path: Path) -> None:
    assert Rig("x", tmp_path, quick=True).outcome("fine", recovered_s=0.123).passed
    assert not Rig("x", tmp_path, quick=True).outcome("lost", lost=1).passed
    assert not Rig("x", tmp_path, quick=True).outcome("failed", failed=1).passed
    rig = Rig("x", tmp_path, quick=True)
    rig.claim([], "there was nothing")
    outcome = rig.outcome("done")
    assert not outcome.passed
    assert outcome.note == "done; PROBLEM: there was nothing"


@pytest.mark.service
def test_command__one_drill__its_row_as_json() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.drills",
        "database",
        "--quick",
        "--json",
        "--only",
        "bank-sqlite-sync",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["drill"], row["lost"], row["failed"], row["passed"]) == ("bank-sqlite-sync", 0, 0, True)
