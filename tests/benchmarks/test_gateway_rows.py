from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gateway import admission, exact, rows
from benchmarks.gateway.admission import Case
from benchmarks.gateway.measure import Sample, all_arrived, in_turns
from benchmarks.processes import Broken


def sample(cpu_us: float) -> Sample:
    return Sample(cpu_us, per_s=1000.0, p50_us=100.0, p99_us=900.0, served=1000)


def test_at_most__ratio_inside_each_pass__a_slow_pass_hits_both() -> None:
    found = rows.at_most("CPU", ("ours", [30.0, 300.0, 32.0]), ("HAProxy", [20.0, 200.0, 20.0]), 1.6)
    assert (found.value, found.goal, found.reached, found.at_most) == (1.5, 1.6, True, True)
    assert list(found.sides) == ["ours", "HAProxy"]


def test_times_better__theirs_over_ours__has_to_reach_the_goal() -> None:
    found = rows.times_better("CPU", ("ours", [40.0, 40.0]), ("Envoy", [90.0, 90.0]), 2.5)
    assert (found.value, found.reached, found.at_most) == (2.25, False, False)


def test_more__difference__is_a_ceiling() -> None:
    found = rows.more("p50", ("ours", [230.0]), ("nginx", [100.0]), "µs", 120.0)
    assert (found.value, found.reached) == (130.0, False)


def test_side__samples__show_cpu_rate_and_latency() -> None:
    found = rows.side("everything", "nginx", [sample(10.0), sample(12.0)])
    assert (found.value, found.goal, list(found.sides)) == (11.0, None, ["CPU", "requests", "p50", "p99"])


def test_in_turns__every_second_pass__goes_backwards() -> None:
    assert [list(turn) for turn in in_turns(3, 3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


def test_all_arrived__one_refusal_or_one_missing__is_broken() -> None:
    all_arrived({"statuses": {"200": 10}, "sent": 10}, 10)
    for statuses, served in (({"200": 9, "502": 1}, 9), ({"200": 10}, 9)):
        with pytest.raises(Broken):
            all_arrived({"statuses": statuses, "sent": 10}, served)


SAMPLES = {"leased": [sample(30.0)], "exact": [sample(45.0)]}


def test_exact__one_script_a_request_against_a_lease__is_compared() -> None:
    found = exact.judge(SAMPLES, {"leased": 5, "exact": 1000}, {"leased": 1000, "exact": 1000})
    assert (found[0].value, found[0].reached) == (1.5, True)
    assert found[1].sides == {"leased": "0.005", "exact": "1.000"}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [({"leased": 1000, "exact": 1000}, "nothing was leased"), ({"leased": 5, "exact": 500}, "only 0.50")],
)
def test_exact__a_side_that_counts_otherwise__has_no_row(asked: dict[str, int], reason: str) -> None:
    with pytest.raises(Broken, match=reason):
        exact.judge(SAMPLES, asked, {"leased": 1000, "exact": 1000})


def said(**statuses: int) -> dict[str, Any]:
    counted = {name.removeprefix("s"): count for name, count in statuses.items()}
    return {"statuses": counted, "sent": sum(statuses.values()), "seconds": 4.01}


CASE = Case(burst=10, at_random=False)


def test_admission__what_the_bucket_held_and_got__is_not_over() -> None:
    found = admission.judge("case", CASE, said(s200=210, s429=3790), served=210)
    assert (found.value, found.reached, found.sides["allowed"]) == (0, True, "210")


@pytest.mark.parametrize(("admitted", "over"), [(211, 1), (4000, 3790)])
def test_admission__more_than_that__is_over(admitted: int, over: int) -> None:
    seen = said(s200=admitted, s429=4000 - admitted) if admitted < 4000 else said(s200=admitted)
    found = admission.judge("case", CASE, seen, served=admitted)
    assert (found.value, found.reached) == (over, False)


@pytest.mark.parametrize(
    ("seen", "served", "reason"),
    [
        (said(s200=100, s429=3900), 100, "only 100 of 210"),
        (said(s200=209, s429=3791), 300, "300 requests reached"),
        (said(s200=209, s500=3791), 209, "answers were"),
    ],
)
def test_admission__load_or_answers_that_say_nothing__are_broken(
    seen: dict[str, Any], served: int, reason: str
) -> None:
    with pytest.raises(Broken, match=reason):
        admission.judge("case", CASE, seen, served)
