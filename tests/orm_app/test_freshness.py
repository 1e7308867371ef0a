from __future__ import annotations

import math

import pytest

from orm_app import freshness
from orm_app.freshness import Limits, Positions, Seen


def test_position__of_each_engine__is_a_number_for_each_stream() -> None:
    assert freshness.postgresql("16/B374D848") == {"": 0x16B374D848}
    assert freshness.mariadb("0-1-100,2-7-9") == {"0": 100, "2": 9}
    assert freshness.mysql("aa:1-5:7-9,\nbb:1") == {"aa": 5, "bb": 1}
    assert freshness.mariadb("") == freshness.mysql("") == {}


@pytest.mark.parametrize(
    ("replayed", "wanted", "covers"),
    [
        ({"": 7}, {"": 7}, True),
        ({"": 6}, {"": 7}, False),
        ({"0": 9, "2": 3}, {"0": 9, "2": 4}, False),
        ({"0": 9}, {"0": 9, "2": 1}, False),
        ({"0": 9, "2": 1}, {"0": 9}, True),
    ],
)
def test_covers__position_of_a_replica__every_stream_counts(
    replayed: freshness.Position, wanted: freshness.Position, covers: bool
) -> None:
    assert freshness.covers(replayed, wanted) is covers


def test_positions__replica_behind__fresh_as_of_the_newest_moment_that_it_has_replayed() -> None:
    known = Positions()
    for moment, lsn in ((10.0, 100), (11.0, 200), (12.0, 300)):
        known.add(moment, {"": lsn})
    assert known.fresh_as_of({"": 250}) == 11.0
    assert known.fresh_as_of({"": 300}) == 12.0
    assert known.fresh_as_of({"": 99}) is None


def test_positions__primary_is_idle__who_has_replayed_all_is_fresh_as_of_now_and_others_are_not() -> None:
    known = Positions(most=3)
    known.add(9.0, {"": 50})
    for moment in range(10, 1000):
        known.add(float(moment), {"": 100})
    assert known.fresh_as_of({"": 100}) == 999.0
    assert known.fresh_as_of({"": 99}) == 9.0


LIMITS = Limits(lag_s=5.0, silence_s=3.0)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (Seen("r", answered_at=106.0, fresh_as_of=102.0), ""),
        (Seen("r", answered_at=106.0, fresh_as_of=100.0), "it is 7.0 s behind, more than 5 s"),
        (Seen("r", answered_at=103.0, fresh_as_of=103.0), "it has not answered for 4.0 s"),
        (Seen("r", answered_at=106.0, fresh_as_of=None), "it is too far behind to tell how much"),
        (Seen("r", answered_at=106.0, fresh_as_of=106.0, trouble="gone"), "gone"),
    ],
    ids=["fresh", "behind", "silent", "far", "gone"],
)
def test_trouble__each_way_to_be_out__is_said(seen: Seen, said: str) -> None:
    assert freshness.trouble(seen, 107.0, LIMITS) == said


def test_trouble__no_limit_of_age__an_old_replica_that_answers_is_used() -> None:
    for fresh_as_of in (1.0, None):
        seen = Seen("r", answered_at=106.0, fresh_as_of=fresh_as_of)
        assert freshness.trouble(seen, 107.0, Limits(math.inf, 3.0)) == ""


def test_has_seen__what_must_be_seen__is_older_than_what_it_has_replayed() -> None:
    seen = Seen("r", 0.0, fresh_as_of=100.0)
    assert freshness.has_seen(seen, None)
    assert freshness.has_seen(seen, 100.0)
    assert not freshness.has_seen(seen, 100.1)
    assert not freshness.has_seen(Seen("r", 0.0, None), 1.0)
