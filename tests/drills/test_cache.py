"""The cache's drills: the checker with wrong readings, and one drill through the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import cache
from .cache.processes import _two_at_once
from .cache.rig import Rig
from .cache.verdict import judge
from .outcome import Broken

ROOT = Path(__file__).resolve().parents[2]


def wrote(version: int, at: float, key: str = "k") -> dict[str, Any]:
    return {"do": "wrote", "key": key, "v": version, "at": at}


def read(version: int | None, at: float, key: str = "k", of: str = "k") -> dict[str, Any]:
    return {"do": "read", "key": key, "of": of, "v": version, "at": at}


def test_chosen__first_words_or_whole_names__are_found() -> None:
    assert {drill.name for drill in cache.chosen("valkey,disk-full")} == {
        "valkey-emptied",
        "valkey-frozen",
        "disk-full",
    }
    with pytest.raises(Broken, match="no drill is called 'kill'"):
        cache.chosen("kill")


@pytest.mark.parametrize(
    ("version", "at", "stale", "oldest_s"),
    [
        (1, 2.04, 0, 0.04),  # just overwritten
        (1, 2.2, 1, 0.2),
        (2, 9.0, 0, 0.0),
        (3, 1.0, 0, 0.0),  # written, and its reply not there yet
        (0, 1.5, 1, 0.5),  # overwritten by the first of the two
        (None, 9.0, 0, 0.0),  # a miss is never stale
    ],
)
def test_judge__one_read__is_as_old_as_the_first_write_above_it(
    version: int | None, at: float, stale: int, oldest_s: float
) -> None:
    seen = judge([wrote(2, 2.0), wrote(1, 1.0), read(version, at)], grace_s=0.05)
    assert (seen.stale, seen.wrong, seen.hits) == (stale, 0, int(version is not None))
    assert seen.oldest_s == pytest.approx(oldest_s)
    assert bool(seen.problems) == bool(stale)


def test_judge__another_key_s_value_and_an_error__are_counted() -> None:
    lines = [read(1, 1.0, of="other"), {"do": "error", "at": 7.0, "what": "x"}, {"do": "error", "at": 3.0}]
    seen = judge(lines, grace_s=1.0)
    assert (seen.wrong, seen.errors, seen.last_error_s) == (1, 2, 7.0)
    assert seen.problems == ("asked for k, got other",)


@pytest.mark.parametrize(("second_at", "held_s", "expected"), [(1.2, 0.1, 0), (1.05, 0.1, 1), (1.05, 0.6, 0)])
def test_two_at_once__within_the_leases__is_counted(second_at: float, held_s: float, expected: int) -> None:
    """The third one was held for longer than its lease: its holder had been stopped."""
    lines = [
        {"do": "held", "fence": 1, "at": 1.0},
        {"do": "left", "fence": 1, "at": 1.0 + held_s, "held_s": held_s},
        {"do": "held", "fence": 2, "at": second_at},
        {"do": "left", "fence": 2, "at": second_at + 0.01, "held_s": 0.01},
    ]
    assert _two_at_once(lines) == expected


def test_outcome__a_claim_that_does_not_hold_or_something_lost__failed(tmp_path: Path) -> None:
    with Rig("drill", tmp_path, quick=True) as rig:
        assert rig.outcome("note").passed
        assert not rig.outcome("note", lost=1).passed
        assert not rig.outcome("note", duplicated=1).passed
        rig.claim(False, "it did not hold")
        outcome = rig.outcome("note")
    assert (outcome.passed, outcome.note) == (False, "note; PROBLEM: it did not hold")


@pytest.mark.slow
def test_command__tracker_cut__prints_what_the_checker_found() -> None:
    command = [
        sys.executable, "-m", "tests.drills", "cache", "--only", "tracker-cut", "--quick", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    (outcome,) = json.loads(done.stdout)
    assert {"drill", "lost", "duplicated", "failed", "recovered_s", "passed"} == set(outcome)
    assert (done.returncode, outcome["passed"]) == (0, True), done.stderr
