"""How often the loader of one cold key runs, and whether increments get lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, judged

from .rig import Side, sides

LOAD_S = 0.05
HEAD_START_S = 0.6  # until all callers of all processes stand ready
PEERS = {"threads": ("django_redis", "django_core"), "tasks": ("cashews", "aiocache")}


def stampede(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    rounds = 3 if quick else 7
    for kind, peers in PEERS.items():
        for processes, callers in ((1, 200), (4, 50)):
            for name in ("brain", *peers):
                yield _loads(url, folder, name, kind, processes, callers, rounds)


def _loads(url: str, folder: Path, name: str, kind: str, processes: int, callers: int, rounds: int) -> Figure:
    most, errors = 0, 0
    counts = []
    for number in range(rounds):
        with _group(url, folder, name, processes) as known:
            at = time.time() + HEAD_START_S
            key = f"cold{number}"
            for side in known:
                side.begin("stampede", key=key, callers=callers, load_s=LOAD_S, at=at, kind=kind)
            answers = [side.answer() for side in known]
        loads = sum(answer["loads"] for answer in answers)
        counts.append(loads)
        most, errors = max(most, loads), errors + sum(answer["errors"] for answer in answers)
    text = f"{', '.join(map(str, counts))} runs, {errors} errors"
    where = f"{processes} × {callers}" if processes > 1 else f"{callers}"
    goal = 1.0 if name == "brain" else None
    figure = judged(f"loader runs, {where} {kind} ({name})", most, "runs", goal, {name: text}, at_most=True)
    if errors and goal is not None:
        return Figure(figure.figure, figure.value, figure.unit, goal, False, figure.sides, at_most=True)
    return figure


class _group:
    """As many processes of one library, with one prefix between them."""

    def __init__(self, url: str, folder: Path, name: str, processes: int) -> None:
        self.made = lambda prefix: [Side(name, url, folder, prefix=prefix) for _ in range(processes)]
        self.known: list[Side] = []
        self.name = name

    def __enter__(self) -> list[Side]:
        self.known = self.made(f"{self.name}{time.monotonic_ns()}")
        return self.known

    def __exit__(self, *_: object) -> None:
        for side in self.known:
            side.stop()


def increments(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    n = 10_000
    for name in ("brain", "django_redis"):
        with sides([name], url, folder) as known:
            counted = known[name].ask("increments", n=n, tasks=100)["counted"]
        goal = 0.0 if name == "brain" else None
        text = f"{counted:,} of {n:,} counted"
        yield judged(
            f"increments lost of 10,000 ({name})", n - counted, "lost", goal, {name: text}, at_most=True
        )
