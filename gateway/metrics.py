"""The gateway's figures for Prometheus: of one process, of all that share a directory, as families and as text.

    tally → figures → publish                     in each worker, every METRICS_PUBLISH_S
    figures of this one + gather → families → render     in the worker that is scraped

What a worker counted outlives it, as counters never go back; what it measured ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import Metric

from .breaker import CLOSED, HALF_OPEN, OPEN
from .latency import BUCKETS_S, OVERHEAD_BUCKETS_S, coarse
from .outages import KINDS, Outage
from .tally import OTHER, Names, Tally

__all__ = ["Names", "Tally", "TargetState", "families", "figures", "gather", "publish", "render"]

STALE_S = 180.0  # a worker that has not published for so long hangs; METRICS_PUBLISH_S is 60 at most
_BREAKER_VALUE = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}
_BORN = time.monotonic_ns()  # tells two processes apart that had the same pid
_ENDED = "ended"

Row = list[Any]
"""Values of the labels, then the number; of a histogram, the counts by bucket and the sum."""
Figures = dict[str, Any]
"""One process's, as JSON types: pid, instance, at (monotonic seconds), rows (a family's name → its rows)."""


@dataclass(frozen=True, slots=True)
class TargetState:
    """How a target stands in this process. breaker: its state's name. is_healthy: by active probes."""

    service: str
    name: str
    inflight: int
    breaker: str
    is_healthy: bool = True
    is_ejected: bool = False


@dataclass(frozen=True, slots=True)
class _Family:
    """joined: how rows with the same labels become one; None of a gauge: each worker has its own."""

    name: str
    kind: str  # counter, gauge or histogram
    told: str
    labels: tuple[str, ...] = ()
    joined: Callable[[Any, Any], Any] | None = lambda a, b: a + b
    buckets_s: tuple[float, ...] = ()


def _both(a: list[float], b: list[float]) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


_BRAIN = "brain_gateway_"
_FAMILIES = (
    _Family("requests", "counter", "Requests that are over.",
            ("route", "service", "target", "method", "status", "plan")),
    _Family("request_duration_seconds", "histogram", "From the first header to the last byte.",
            ("route",), _both, BUCKETS_S),
    _Family("overhead_seconds", "histogram", "The part of a request that the gateway itself took.",
            ("service",), _both, OVERHEAD_BUCKETS_S),
    _Family("upstream_duration_seconds", "histogram", "The part of a request that its target took.",
            ("service", "target"), _both, BUCKETS_S),
    _Family("received_body_bytes", "counter", "Of request bodies.", ("route",)),
    _Family("sent_body_bytes", "counter", "Of response bodies.", ("route",)),
    _Family("refused", "counter", "Requests that the gateway answered itself, by X-Brain-Error.", ("reason",)),
    _Family("rate_limited", "counter", "Requests refused by a limit.", ("route",)),
    _Family("limiter_store_failures", "counter", "Times that the limits' store did not answer."),
    _Family("upstream_errors", "counter", "Failures of a target to serve: connect, tls, timeout, …",
            ("target", "reason")),
    _Family("stale_answers", "counter", "Answers from before, given as no target answered.", ("route", "reason")),
    _Family("retries", "counter", "Requests sent to another target.", ("service",)),
    _Family("retries_denied", "counter", "Requests not sent to another target, as the retry budget was spent.",
            ("service",)),
    _Family("ejections", "counter", "Times that a target was left alone as an outlier.", ("service", "target")),
    _Family("panics", "counter", "Requests sent to an unhealthy target, as too few were healthy.", ("service",)),
    _Family("plugin_failures", "counter", "Exceptions out of a plugin's hooks.", ("plugin",)),
    _Family("responses_unedited", "counter", "Bodies of responses that went on as they were, though edits wanted them.",
            ("route", "reason")),
    _Family("tunnels_opened", "counter", "WebSockets."),
    _Family("folded", "counter", 'Counts that went to "other", as there were too many series.'),
    _Family("access_log_dropped", "counter", "Lines lost, as the log's file or pipe did not keep up."),
    _Family("traffic_dropped", "counter", "Requests missing in the admin's figures, as Redis was away for too long."),
    _Family("inflight", "gauge", "Requests at a target now.", ("service", "target")),
    _Family("connections", "gauge", "Open connections of clients."),
    _Family("tunnels", "gauge", "Open WebSockets."),
    _Family("target_healthy", "gauge", "1, or 0 while active probes find it unhealthy.", ("service", "target"), min),
    _Family("target_ejected", "gauge", "Workers that leave it alone as an outlier.", ("service", "target")),
    _Family("breaker_state", "gauge", "0 closed, 1 half-open, 2 open; each worker has its own.",
            ("service", "target"), None),
    _Family("limiter_store_up", "gauge", "0 while limits are counted without their store.", (), None),
    _Family("out_of_service", "gauge", "Parts of the configuration that cannot be used.", ("kind",), max),
    _Family("snapshot_version", "gauge", "The configuration in use.", (), None),
    _Family("snapshot_age_seconds", "gauge", "Since it was last known to be the newest.", (), None),
    _Family("workers", "gauge", "Processes whose figures these are."),
)  # fmt: skip


def figures(
    tally: Tally,
    targets: Iterable[TargetState],
    snapshot_version: int,
    *,
    snapshot_age_s: float = 0.0,
    connections: int = 0,
    is_store_up: bool = True,
    log_dropped: int = 0,
    traffic_dropped: int = 0,
    outages: Sequence[Outage] = (),
) -> Figures:
    """What one worker publishes, as of now; from any thread. It takes 1 to 2 ms of 10,000 series."""
    standing = list(targets)
    rows = {
        **_counted(tally),
        "access_log_dropped": [[log_dropped]],
        "traffic_dropped": [[traffic_dropped]],
        "inflight": [[t.service, t.name, t.inflight] for t in standing],
        "connections": [[connections]],
        "tunnels": [[tally.tunnels]],
        "target_healthy": [[t.service, t.name, int(t.is_healthy)] for t in standing],
        "target_ejected": [[t.service, t.name, int(t.is_ejected)] for t in standing],
        "breaker_state": [[t.service, t.name, _BREAKER_VALUE[t.breaker]] for t in standing],
        "limiter_store_up": [[int(is_store_up)]],
        "out_of_service": [[kind, sum(one.kind == kind for one in outages)] for kind in KINDS],
        "snapshot_version": [[snapshot_version]],
        "snapshot_age_seconds": [[snapshot_age_s]],
        "workers": [[1]],
    }
    pid = os.getpid()
    return {"pid": pid, "instance": f"{pid}-{_BORN}", "at": time.monotonic(), "rows": rows}


def _counted(tally: Tally) -> dict[str, list[Row]]:
    # list() before each walk: the event loop may count something new meanwhile.
    requests, received, sent = [], dict[str, int](), dict[str, int]()
    for (route, service, target, method, kind, plan), cell in list(tally.cells.items()):
        requests.append([route, service, target, method, f"{kind}xx" if kind else OTHER, plan, cell.count])
        received[route] = received.get(route, 0) + cell.received
        sent[route] = sent.get(route, 0) + cell.sent
    return {
        "requests": requests,
        "request_duration_seconds": [[r, [*coarse(t[:-1]), t[-1]]] for r, t in list(tally.times.items())],
        "overhead_seconds": [[service, list(times)] for service, times in list(tally.overhead.items())],
        "upstream_duration_seconds": [[*key, list(times)] for key, times in list(tally.upstream.items())],
        "received_body_bytes": [[*item] for item in received.items()],
        "sent_body_bytes": [[*item] for item in sent.items()],
        "refused": [[*item] for item in list(tally.refusals.items())],
        "rate_limited": [[*item] for item in list(tally.rate_limited.items())],
        "limiter_store_failures": [[tally.store_failures]],
        "upstream_errors": [[*key, count] for key, count in list(tally.upstream_errors.items())],
        "stale_answers": [[*key, count] for key, count in list(tally.stale.items())],
        "retries": [[*item] for item in list(tally.retries.items())],
        "retries_denied": [[*item] for item in list(tally.retries_denied.items())],
        "ejections": [[*key, count] for key, count in list(tally.ejections.items())],
        "panics": [[*item] for item in list(tally.panics.items())],
        "plugin_failures": [[*item] for item in list(tally.plugin_failures.items())],
        "responses_unedited": [[*key, count] for key, count in list(tally.unedited.items())],
        "tunnels_opened": [[tally.tunnels_opened]],
        "folded": [[tally.folded]],
    }


# --- between processes ---


def publish(directory: Path, mine: Figures) -> None:
    """Write this worker's figures so that a reader sees the old or the new ones, never half."""
    _write(directory / f"{mine['instance']}.json", mine)


def gather(directory: Path | None, mine: Figures) -> list[Figures]:
    """The figures of all workers, this one's as they are now; the others' at most METRICS_PUBLISH_S old.

    Those of workers that ended are added up in one file, so that a worker that ends again and again leaves no heap.
    """
    if directory is None:
        return [mine]
    with _alone_in(directory):
        ended = _read(directory / f"{_ENDED}.json") or {"pid": 0, "instance": _ENDED, "files": [], "rows": {}}
        others, fresh = list[Figures](), list[Figures]()
        for path in sorted(directory.glob("*-*.json")):
            if path.stem in ended["files"]:  # added, but the one who did it ended before removing it
                path.unlink(missing_ok=True)
            elif path.stem != mine["instance"] and (found := _read(path)):
                (others if _lives(found["pid"]) else fresh).append(found)
        if fresh:
            ended = _added(ended, fresh)
            _write(directory / f"{_ENDED}.json", ended)
            for gone in fresh:
                (directory / f"{gone['instance']}.json").unlink(missing_ok=True)
    return [mine, *others, ended]


def _added(ended: Figures, fresh: list[Figures]) -> Figures:
    rows = {}
    for family in _FAMILIES:
        if family.kind != "gauge":
            rows[family.name] = [
                [*labels, value] for labels, value in _joined(family, [ended, *fresh]).items()
            ]
    return {**ended, "files": [gone["instance"] for gone in fresh], "rows": rows}


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Two workers may be scraped at the same time."""
    number = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _write(path: Path, found: Figures) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(orjson.dumps(found))
    os.replace(fresh, path)


def _read(path: Path) -> Figures | None:
    with contextlib.suppress(OSError, ValueError):
        found: Figures = orjson.loads(path.read_bytes())
        return found
    return None


# --- for Prometheus ---


def render(everyone: list[Figures]) -> bytes:
    """The Prometheus text format (0.0.4). Written here, as prometheus_client takes four times as long for it, and the
    event loop waits for whoever holds the interpreter."""
    lines: list[str] = []
    for family, rows in _all(everyone):
        name = _BRAIN + family.name
        shown = f"{name}_total" if family.kind == "counter" else name
        lines += (f"# HELP {shown} {_escaped(family.told)}", f"# TYPE {shown} {family.kind}")
        for values, value in rows:
            pairs = [
                f'{label}="{_quoted(text)}"' for label, text in zip(_labels(family), values, strict=True)
            ]
            for suffix, bound, number in _samples(family, value):
                inner = ",".join([*pairs, f'le="{bound}"'] if bound else pairs)
                lines.append(f"{name}{suffix}{f'{{{inner}}}' if inner else ''} {float(number)!r}")
    return "\n".join([*lines, ""]).encode()


def families(everyone: list[Figures]) -> Iterator[Metric]:
    """The figures of all workers as one set of Prometheus metrics."""
    for family, rows in _all(everyone):
        metric = Metric(_BRAIN + family.name, family.told, family.kind)
        for values, value in rows:
            labels = dict(zip(_labels(family), values, strict=True))
            for suffix, bound, number in _samples(family, value):
                le = {"le": bound} if bound else {}
                metric.add_sample(metric.name + suffix, labels | le, number)
        yield metric


def _all(everyone: list[Figures]) -> Iterator[tuple[_Family, Iterable[tuple[tuple[str, ...], Any]]]]:
    oldest = time.monotonic() - STALE_S
    living = [f for f in everyone if f["pid"] and f["at"] >= oldest and _lives(f["pid"])]
    for family in _FAMILIES:
        if family.joined is None:
            yield (
                family,
                [
                    ((*labels, str(found["pid"])), value)
                    for found in living
                    for *labels, value in found["rows"].get(family.name, ())
                ],
            )
        else:
            yield family, _joined(family, living if family.kind == "gauge" else everyone).items()


def _labels(family: _Family) -> tuple[str, ...]:
    return family.labels if family.joined is not None else (*family.labels, "worker")


def _samples(family: _Family, value: Any) -> Iterator[tuple[str, str, float]]:
    """(suffix of the name, upper bound of a bucket or "", number)"""
    if family.kind != "histogram":
        yield ("_total" if family.kind == "counter" else "", "", value)
        return
    running = 0.0
    for bound, count in zip((*family.buckets_s, "+Inf"), value, strict=False):
        running += count
        yield "_bucket", str(bound), running
    yield "_count", "", running
    yield "_sum", "", value[-1]


def _joined(family: _Family, everyone: list[Figures]) -> dict[tuple[str, ...], Any]:
    assert family.joined is not None  # noqa: S101
    total: dict[tuple[str, ...], Any] = {}
    for found in everyone:
        for *labels, value in found["rows"].get(family.name, ()):
            key = tuple(labels)
            total[key] = family.joined(total[key], value) if key in total else value
    return total


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
