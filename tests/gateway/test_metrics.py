"""What is counted, what stays bounded, and what Prometheus reads of one process and of several."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway import latency, metrics
from gateway.metrics import Names, Tally, TargetState
from gateway.tally import OTHER, RETIRED, RETIRED_AFTER_S, UNROUTED

from .client import eventually, request
from .conftest import RunningEdge

NAME = "brain_gateway_"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[NAME + name, frozenset(labels.items())]


def one_request(tally: Tally, **changes: Any) -> None:
    usual = {
        "route": "/tasks",
        "service": "tasks",
        "target": "a:80",
        "method": "GET",
        "status": 200,
        "plan": "gold",
    }
    tally.finished(**{**usual, "total_s": 0.02, "upstream_s": 0.0185, **changes})  # type: ignore[arg-type]


def shown(tally: Tally, *targets: TargetState, **values: Any) -> Samples:
    return samples(metrics.render([metrics.figures(tally, targets, 7, **values)]))


# --- one process


def test_render__requests__by_every_label_with_the_latency_split() -> None:
    tally = Tally()
    for _ in range(3):
        one_request(tally, received_bytes=10, sent_bytes=100)
    one_request(tally, status=503, total_s=0.5, upstream_s=0.4)
    found = shown(tally)
    labels = {"route": "/tasks", "service": "tasks", "target": "a:80", "method": "GET", "plan": "gold"}
    assert value(found, "requests_total", **labels, status="2xx") == 3
    assert value(found, "requests_total", **labels, status="5xx") == 1
    assert value(found, "request_duration_seconds_bucket", route="/tasks", le="0.01") == 0
    assert value(found, "request_duration_seconds_bucket", route="/tasks", le="0.025") == 3
    assert value(found, "request_duration_seconds_bucket", route="/tasks", le="+Inf") == 4
    assert value(found, "request_duration_seconds_sum", route="/tasks") == pytest.approx(0.56)
    assert value(found, "request_duration_seconds_count", route="/tasks") == 4
    assert value(found, "overhead_seconds_bucket", service="tasks", le="0.002") == 3
    assert value(found, "overhead_seconds_sum", service="tasks") == pytest.approx(0.1045)
    assert value(found, "upstream_duration_seconds_sum", service="tasks", target="a:80") == pytest.approx(
        0.4555
    )
    assert value(found, "received_body_bytes_total", route="/tasks") == 30
    assert value(found, "sent_body_bytes_total", route="/tasks") == 300


def test_render__everything_else__under_its_name() -> None:
    tally = Tally()
    for _ in range(2):
        tally.limited("/tasks")
        tally.refused("no_route")
        tally.retried("tasks")
        tally.retry_denied("tasks")
        tally.upstream_failed("a:80", "tls")
        tally.answered_stale("/tasks", "no_target")
        tally.ejected("tasks", "a:80")
        tally.panicked("tasks")
        tally.plugin_failed("stamp")
        tally.store_failed()
        tally.tunnel_opened()
    tally.tunnel_closed()
    state = TargetState("tasks", "a:80", 3, "half_open", is_healthy=False, is_ejected=True)
    given = {
        "snapshot_age_s": 1.5,
        "connections": 9,
        "is_store_up": False,
        "log_dropped": 4,
        "traffic_dropped": 5,
    }
    found = shown(tally, state, **given)
    target, worker = {"service": "tasks", "target": "a:80"}, {"worker": str(os.getpid())}
    assert value(found, "rate_limited_total", route="/tasks") == 2
    assert value(found, "refused_total", reason="no_route") == 2
    assert value(found, "retries_total", service="tasks") == 2
    assert value(found, "retries_denied_total", service="tasks") == 2
    assert value(found, "upstream_errors_total", target="a:80", reason="tls") == 2
    assert value(found, "stale_answers_total", route="/tasks", reason="no_target") == 2
    assert value(found, "ejections_total", **target) == 2
    assert value(found, "panics_total", service="tasks") == 2
    assert value(found, "plugin_failures_total", plugin="stamp") == 2
    assert value(found, "limiter_store_failures_total") == 2
    assert (value(found, "tunnels"), value(found, "tunnels_opened_total")) == (1, 2)
    assert (value(found, "access_log_dropped_total"), value(found, "traffic_dropped_total")) == (4, 5)
    assert (value(found, "inflight", **target), value(found, "connections")) == (3, 9)
    assert (value(found, "target_healthy", **target), value(found, "target_ejected", **target)) == (0, 1)
    assert value(found, "breaker_state", **target, **worker) == 1
    assert value(found, "limiter_store_up", **worker) == 0
    assert value(found, "snapshot_version", **worker) == 7
    assert value(found, "snapshot_age_seconds", **worker) == 1.5


def test_render__odd_names__survive_the_text_format() -> None:
    tally = Tally()
    odd = 'a"b\\c\nd'
    one_request(tally, route=odd)
    assert value(shown(tally), "request_duration_seconds_count", route=odd) == 1


class _Registered:
    def __init__(self, tally: Tally) -> None:
        self.tally = tally

    def collect(self) -> list[Metric]:
        return list(metrics.families([metrics.figures(self.tally, [], 1)]))


def test_families__registered_with_prometheus_client__the_same_samples_as_our_text() -> None:
    tally = Tally()
    one_request(tally)
    tally.limited("/tasks")
    registry = CollectorRegistry()
    registry.register(_Registered(tally))  # type: ignore[arg-type]
    ours = metrics.render([metrics.figures(tally, [], 1)])
    assert samples(generate_latest(registry)) == samples(ours)
    families = list(text_string_to_metric_families(ours.decode()))
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}


# --- bounds


def test_tally__made_up_methods_and_statuses__no_labels_of_their_own() -> None:
    tally = Tally()
    for number in range(50):
        one_request(tally, method=f"M{number}", status=900 + number)
    one_request(tally, route="", service="", target="", method="PUT", status=101)
    assert [(key[0], key[3], key[4], cell.count) for key, cell in tally.cells.items()] == [
        ("/tasks", OTHER, 0, 50),
        (UNROUTED, "PUT", 1, 1),
    ]
    assert value(shown(tally), "request_duration_seconds_count", route=UNROUTED) == 1
    assert len(tally._found) == 1  # the callers' spellings are bounded, too


def test_tally__more_series_than_allowed__the_rest_is_other_and_said_so() -> None:
    tally = Tally(max_series=200)
    for number in range(500):
        one_request(tally, route=f"/r{number}")
        tally.refused(f"reason {number}")
    found = shown(tally)
    assert tally.series < 200 + 60  # those of "other" come on top
    folded = value(found, "folded_total")
    assert folded > 900
    count = sum(number for (name, _), number in found.items() if name == NAME + "requests_total")
    assert count == 500  # none is lost
    others = {
        "route": OTHER,
        "service": OTHER,
        "target": OTHER,
        "method": OTHER,
        "status": "2xx",
        "plan": OTHER,
    }
    assert value(found, "requests_total", **others) + value(found, "refused_total", reason=OTHER) == folded
    one_request(tally, route="/r0")
    assert value(shown(tally), "folded_total") == folded  # what was known goes on


def test_retire__gone_for_an_hour__counts_move_and_names_that_came_back_stay() -> None:
    tally = Tally()
    for route, service, target in (
        ("/old", "past", "x:1"),
        ("/new", "tasks", "a:80"),
        ("/back", "tasks", "a:80"),
    ):
        one_request(tally, route=route, service=service, target=target, sent_bytes=5)
        tally.limited(route)
    tally.upstream_failed("x:1", "connect")
    tally.upstream_failed("y:1", "connect")
    now = Names(frozenset({"/new"}), frozenset({"tasks"}), frozenset({"a:80"}))
    both = Names(now.routes | {"/back"}, now.services, now.targets)
    tally.retire(now, 0.0)
    tally.retire(both, 60.0)
    tally.retire(now, RETIRED_AFTER_S - 1)
    assert value(shown(tally), "rate_limited_total", route="/old") == 1
    tally.retire(now, RETIRED_AFTER_S)
    one_request(tally, route="/new")
    found = shown(tally)
    assert value(found, "rate_limited_total", route=RETIRED) == 1
    assert value(found, "rate_limited_total", route="/back") == 1
    assert value(found, "upstream_errors_total", target=RETIRED, reason="connect") == 2
    assert value(found, "request_duration_seconds_count", route=RETIRED) == 1
    assert value(found, "sent_body_bytes_total", route=RETIRED) == 5
    assert value(found, "upstream_duration_seconds_count", service=RETIRED, target=RETIRED) == 1
    assert value(found, "request_duration_seconds_count", route="/new") == 2
    assert not any("/old" in dict(labels).values() for _, labels in found)


# --- several processes


def test_gather__two_processes__summed_and_kept_after_one_has_ended(tmp_path: Path) -> None:
    script = """
import sys
from bisect import bisect_left
from pathlib import Path
from gateway import metrics
tally = metrics.Tally()
for _ in range(20):
    tally.finished("/tasks", "tasks", "a:80", "GET", 200, "gold", 0.02, 0.01)
state = metrics.TargetState("tasks", "a:80", 2, "open")
metrics.publish(Path(sys.argv[1]), metrics.figures(tally, [state], 1, connections=4))
print("ready", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    with other, other.stdout:
        assert other.stdout.readline() == "ready\n"
        tally = Tally()
        for _ in range(3):
            one_request(tally)
        state = TargetState("tasks", "a:80", 1, "closed")
        mine = metrics.figures(tally, [state], 1, connections=1)
        metrics.publish(tmp_path, mine)
        found = samples(metrics.render(metrics.gather(tmp_path, mine)))
        target = {"service": "tasks", "target": "a:80"}
        assert value(found, "request_duration_seconds_count", route="/tasks") == 23
        assert (value(found, "inflight", **target), value(found, "connections")) == (3, 5)
        assert value(found, "breaker_state", **target, worker=str(other.pid)) == 2
        assert value(found, "workers") == 2
        other.stdin.close()
        other.wait(60)
    for _ in range(2):  # the second look finds the sum of those that ended
        found = samples(metrics.render(metrics.gather(tmp_path, mine)))
        assert value(found, "request_duration_seconds_count", route="/tasks") == 23
        assert (value(found, "inflight", **target), value(found, "workers")) == (1, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"{mine['instance']}.json", "ended.json"]
    )


def test_gather__ended_between_adding_and_removing__not_counted_twice(tmp_path: Path) -> None:
    tally = Tally()
    one_request(tally)
    mine = metrics.figures(Tally(), [], 1)
    gone = {**metrics.figures(tally, [], 1), "pid": _unused_pid(), "instance": f"{_unused_pid()}-1"}
    metrics.publish(tmp_path, gone)
    metrics.gather(tmp_path, mine)
    metrics.publish(tmp_path, gone)  # as if it had not been removed
    found = samples(metrics.render(metrics.gather(tmp_path, mine)))
    assert value(found, "request_duration_seconds_count", route="/tasks") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ended.json"]


def test_gather__broken_file__the_others_are_shown(tmp_path: Path) -> None:
    (tmp_path / "1-1.json").write_bytes(b'{"pid":')
    tally = Tally()
    one_request(tally)
    found = samples(metrics.render(metrics.gather(tmp_path, metrics.figures(tally, [], 1))))
    assert value(found, "request_duration_seconds_count", route="/tasks") == 1


def _unused_pid() -> int:
    return 2**22 + 1  # above what Linux gives


# --- latency


def test_bounds__fine_ones__hold_the_coarse_ones_and_keep_the_error_that_is_promised() -> None:
    assert set(latency.BUCKETS_S) <= set(latency.FINE_S)
    steps = [after / before for before, after in zip(latency.FINE_S, latency.FINE_S[1:], strict=False)]
    assert max(steps) - 1 == pytest.approx(latency.ERROR)
    assert tuple(sorted(latency.FINE_S)) == latency.FINE_S


@pytest.mark.parametrize("median_s", [0.0008, 0.02, 1.7])
def test_quantile__many_durations__within_the_error_of_the_true_one(median_s: float) -> None:
    dice = random.Random(3)
    times = sorted(median_s * dice.lognormvariate(0, 1) for _ in range(5000))
    counts = [0.0] * (len(latency.FINE_S) + 1)
    for time_s in times:
        counts[bisect_left(latency.FINE_S, time_s)] += 1
    for share, found in zip(latency.QUANTILES, latency.quantiles(counts), strict=True):
        true = times[max(0, -(-int(share * 100) * len(times) // 100) - 1)]
        assert found == pytest.approx(true, rel=latency.ERROR)
    assert sum(latency.coarse(counts)) == len(times)


def test_quantile__nothing_or_beyond_the_bounds__none_and_the_last_bound() -> None:
    assert latency.quantile([], 0.5) is None
    assert latency.quantile([0] * 5, 0.5) is None
    beyond = [0] * len(latency.FINE_S) + [1]
    assert latency.quantile(beyond, 0.99) == 1000.0
    assert latency.quantile([4], 0.5) == pytest.approx(0.00005)


def test_edge__asked_by_many_at_once__they_share_an_answer_that_is_newer_than_their_question(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, real = [], threading.Event(), metrics.render

    def slow(figures: Any) -> bytes:
        begun.append(len(begun))
        assert go_on.wait(60.0)
        return real(figures)

    monkeypatch.setattr("gateway.worker.metrics.render", slow)
    scrape = request("/gateway/metrics", key=None)
    with contextlib.ExitStack() as stack:
        first, *others = (stack.enter_context(edge.client()) for _ in range(10))
        first.send(scrape)
        assert eventually(lambda: len(begun) == 1)
        assert edge.ask(request("/open/x", key=None)).status == 200
        for one in others:
            one.send(scrape)
        assert eventually(lambda: sum(one.exchange is not None for one in edge.worker.connections) == 10)
        go_on.set()
        answers = [one.answer() for one in (first, *others)]
    assert len(begun) == 2
    counted = [
        answer is not None and b'brain_gateway_requests_total{route="/open"' in answer.body
        for answer in answers
    ]
    assert counted == [False] + [True] * 9
