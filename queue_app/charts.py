"""Statistics as charts and tables show them: tallies → lines, words for those who see no chart, sorted rows, sparklines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from foundation import figures

from .histograms import QUANTILES, Tally, quantile, total

Points = Sequence[tuple[datetime, Tally]]
OUTCOMES = ("completed", "failed", "dead", "cancelled")
SHARES = tuple(f"p{share * 100:.0f}" for share in QUANTILES)
_DAY_S = 86_400


class Line(NamedTuple):
    """One colour of a chart; a step without anything to measure has None."""

    name: str
    values: list[float | None]


class Chart(NamedTuple):
    """kind: "bars", which are stacked, or "lines". unit: "count", "seconds" or "share". told: it in words."""

    id: str
    title: str
    kind: str
    unit: str
    lines: list[Line]
    told: str


class Row(NamedTuple):
    """A queue's task. runs: those that ended; wait and run: p50, p95, p99 in seconds."""

    queue: str
    task: str
    runs: int
    failures: int
    share: float | None
    wait: tuple[float | None, ...]
    run: tuple[float | None, ...]


class Spark(NamedTuple):
    """Coordinates for an SVG: of a line, and of the area below it."""

    line: str
    area: str


_COLUMNS: Mapping[str, Callable[[Row], Any]] = {
    "queue": lambda row: (row.queue, row.task),
    "task": lambda row: (row.task, row.queue),
    "runs": lambda row: row.runs,
    "failures": lambda row: row.failures,
    "share": lambda row: row.share,
    **{f"wait_{name}": lambda row, at=at: row.wait[at] for at, name in enumerate(SHARES)},  # type: ignore[misc]
    **{f"run_{name}": lambda row, at=at: row.run[at] for at, name in enumerate(SHARES)},  # type: ignore[misc]
}
COLUMNS = tuple(_COLUMNS)


def charts(points: Points, step_s: int, now: datetime) -> list[Chart]:
    """The four of the page. The last step is not over, so what is told as "last" is the one before it."""
    ended = [tally for at, tally in points if at + timedelta(seconds=step_s) <= now]
    last, whole = (ended or [Tally()])[-1], total(tally for _, tally in points)
    return [
        _throughput(points, step_s, last, whole),
        _quantiles(points, "wait", "Wait, from due to started", last, whole),
        _quantiles(points, "run", "Run time", last, whole),
        _failures(points, last, whole),
    ]


def labels(points: Points, step_s: int) -> list[str]:
    return figures.steps([at for at, _ in points], step_s)


def document(found: Sequence[Chart], names: Sequence[str]) -> dict[str, Any]:
    """As JSON for the page's script, which draws it."""
    shown = [
        {**chart._asdict(), "lines": [{"name": line.name, "values": line.values} for line in chart.lines]}
        for chart in found
    ]
    return {"labels": list(names), "charts": shown}


def per(step_s: int) -> str:
    """The length of a step in words: minute, 5 minutes, hour, 6 hours, day."""
    size, unit = next(
        (size, unit) for size, unit in ((_DAY_S, "day"), (3600, "hour"), (60, "minute")) if step_s % size == 0
    )
    return unit if step_s == size else f"{step_s // size} {unit}s"


def runs(tally: Tally) -> int:
    """Those that ended, cancelled ones aside: what a share of failures is a share of."""
    return tally.completed + tally.failed + tally.dead


def rows(summary: Mapping[tuple[str, str], Tally], sort: str = "queue") -> list[Row]:
    """By one of COLUMNS, with a "-" before it from the highest; what has no value comes last. ValueError for another one."""
    is_falling, column = sort.startswith("-"), sort.removeprefix("-")
    if column not in _COLUMNS:
        raise ValueError(
            f"{sort[:40]!r} is not one of {', '.join(COLUMNS)}, nor one of these with - before it"
        )
    key = _COLUMNS[column]
    found = [_row(queue, task, tally) for (queue, task), tally in sorted(summary.items())]
    known = sorted((row for row in found if key(row) is not None), key=key, reverse=is_falling)
    return known + [row for row in found if key(row) is None]


def spark(values: Sequence[float], width: float, height: float) -> Spark:
    """A line over the whole width; it lies on the floor when nothing happened."""
    highest, last = max(values, default=0) or 1, max(1, len(values) - 1)
    spots = [
        f"{at * width / last:.1f},{height - 1 - (height - 2) * value / highest:.1f}"
        for at, value in enumerate(values)
    ]
    return Spark(" ".join(spots), " ".join([f"0,{height:g}", *spots, f"{width:g},{height:g}"]))


def _throughput(points: Points, step_s: int, last: Tally, whole: Tally) -> Chart:
    lines = [Line(name, [getattr(tally, name) for _, tally in points]) for name in OUTCOMES]
    all_ = ", ".join(f"{figures.count(getattr(whole, name))} {name}" for name in OUTCOMES)
    told = f"{figures.count(runs(last))} runs in the last {per(step_s)}. In all {all_}."
    return Chart("throughput", f"Runs per {per(step_s)}", "bars", "count", lines, told)


def _quantiles(points: Points, of: str, title: str, last: Tally, whole: Tally) -> Chart:
    lines = [
        Line(name, [_brief(quantile(getattr(tally, of), share)) for _, tally in points])
        for name, share in zip(SHARES, QUANTILES, strict=True)
    ]
    told = f"Last {_quantiles_told(getattr(last, of))}. In all {_quantiles_told(getattr(whole, of))}."
    return Chart(of, title, "lines", "seconds", lines, told)


def _quantiles_told(histogram: Mapping[int, int]) -> str:
    if not histogram:
        return "none"
    shares = zip(SHARES, QUANTILES, strict=True)
    return ", ".join(f"{name} {figures.duration(quantile(histogram, share))}" for name, share in shares)


def _failures(points: Points, last: Tally, whole: Tally) -> Chart:
    line = Line("failed runs", [_brief(tally.failure_share) for _, tally in points])
    told = f"Last {figures.share(last.failure_share)}. In all {figures.share(whole.failure_share)}."
    return Chart("failures", "Failure rate", "lines", "share", [line], told)


def _row(queue: str, task: str, tally: Tally) -> Row:
    wait, run = (
        tuple(quantile(histogram, share) for share in QUANTILES) for histogram in (tally.wait, tally.run)
    )
    return Row(queue, task, runs(tally), tally.failed + tally.dead, tally.failure_share, wait, run)


def _brief(value: float | None) -> float | None:
    """Of the digits that a page can show."""
    return None if value is None else float(f"{value:.4g}")
