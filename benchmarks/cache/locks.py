"""Locks: their price when nobody waits, how soon a waiter gets them, and whether two ever hold one.

Rates are taken in one process, A B A B: a lock's price is one round trip each way, and the process decides the rest.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, judged, paired
from benchmarks.processes import ROOT, Broken, environment

RATES = [  # figure, verb, ours, peer, goal
    ("lock + unlock", "rate", "brain", "redis_py", 0.9),
    ("lock + unlock, watchdog on", "rate", "brain_renew", "redis_py", 0.9),
    ("lock + unlock, an object per use", "rate", "brain_new", "django_redis", None),
    ("async lock + unlock", "arate", "brain", "redis_py", 0.9),
]
LEASE_S, STOPPED_S = 0.25, 0.6  # of the contenders; a stopped one has lost its lease for certain


def figures(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    yield from rates(url, folder, quick=quick)
    yield from hand_over(url, folder, quick=quick)
    yield from mutual_exclusion(url, folder, quick=quick)


def run(url: str, quick: bool, folder: Path) -> list[Figure]:
    return list(figures(url, folder, quick=quick))


def rates(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    n, rounds = (1000, 7) if quick else (3000, 15)
    with Worker(url, folder) as worker:
        worker.answer()  # it is there
        for figure, verb, ours, peer, goal in RATES:
            found: dict[str, list[float]] = {ours: [], peer: []}
            for number in range(rounds):
                for name in (ours, peer) if number % 2 == 0 else (peer, ours):
                    found[name].append(worker.ask(verb, side=name, n=n)["per_s"])
            yield paired(f"{figure} ({peer})", (ours, found[ours]), (peer, found[peer]), "/s", goal)


def hand_over(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """From just before the release in one process until the waiter in another has it."""
    sides = ("brain", "brain_fifo", "brain_async", "django_redis")
    took: dict[str, list[float]] = {side: [] for side in sides}
    with Worker(url, folder, prefix="handed") as holder, Worker(url, folder, prefix="handed") as waiter:
        holder.answer(), waiter.answer()  # they are there
        for number in range(-1, 30 if quick else 150):  # the first time everything is still cold
            for side in sides if number % 2 == 0 else reversed(sides):
                holder.ask("hold", side=side)
                waiter.begin("wait", side=side)
                time.sleep(0.03 + 0.0137 * (number % 7))  # at any point of a poller's sleep
                freed = holder.ask("free")["at"]
                took_ms = (waiter.answer()["at"] - freed) * 1000
                if number >= 0:
                    took[side].append(took_ms)
    for side in sides:
        p50, p99 = _quantile(took[side], 0.5), _quantile(took[side], 0.99)
        goal = 5.0 if side != "django_redis" else None
        told = {side: f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"}
        yield judged(f"hand-over to a waiter, p50 ({side})", p50, "ms", goal, told, at_most=True)


def mutual_exclusion(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """Six processes want one lock, and any of them is killed or stopped beyond its lease at any moment."""
    seconds = 8.0 if quick else 40.0
    logs = _contended(url, folder, seconds, hits_every_s=0.05)
    found = judge(logs, LEASE_S)
    told = {
        "brain": f"{found.grants:,} grants, {found.lost} outlived their lease, {found.unfinished} were killed"
    }
    yield judged("two held one lock", found.double, "times", 0.0, told, at_most=True)
    yield judged("freed what was another's", found.foreign, "times", 0.0, told, at_most=True)
    yield judged("fences that did not rise", found.repeated, "times", 0.0, told, at_most=True)


def _contended(url: str, folder: Path, seconds: float, hits_every_s: float) -> list[Path]:
    chance, logs = random.Random(7), []
    with ExitStack() as stack:

        def start() -> tuple[Worker, Path]:
            logs.append(folder / f"contended-{len(logs)}.log")
            worker = stack.enter_context(Worker(url, folder, prefix="contended"))
            worker.begin("contend", log=str(logs[-1]), lease_s=LEASE_S, seed=len(logs))
            return worker, logs[-1]

        running = [start() for _ in range(6)]
        for worker, _ in running:
            worker.answer()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(hits_every_s)
            holders = [place for place, (_, log) in enumerate(running) if _holds(log)]
            place = chance.choice(holders or range(len(running)))
            worker, _ = running[place]
            if chance.random() < 0.3:
                worker.signal(signal.SIGKILL)
                running[place] = start()  # nobody waits for it
            else:
                worker.signal(signal.SIGSTOP)
                time.sleep(STOPPED_S)
                worker.signal(signal.SIGCONT)
    return logs


def _holds(log: Path) -> bool:
    return log.exists() and log.read_text().rpartition("\ngrant ")[2].count("\n") == 1


@dataclass(frozen=True, slots=True)
class Verdict:
    grants: int
    lost: int  # released too late, and told so
    unfinished: int  # granted to one that was killed
    double: int
    foreign: int
    repeated: int


def judge(logs: list[Path], lease_s: float) -> Verdict:
    """By the fence, which is the server's clock in microseconds, to the millisecond: the time of the grant."""
    granted: list[tuple[int, float]] = []
    left: dict[int, float] = {}
    released: dict[int, bool] = {}
    for log in logs:
        for line in log.read_text().splitlines() if log.exists() else ():
            match line.split():
                case ["grant", fence, at]:
                    granted.append((int(fence), float(at)))
                case ["leave", fence, at]:
                    left[int(fence)] = float(at)
                case ["release", fence, is_ours]:
                    released[int(fence)] = is_ours == "1"
    granted.sort()
    double = foreign = 0
    for (fence, _), (after, after_at) in zip(granted, granted[1:], strict=False):
        was_ours = released.get(fence)
        if not was_ours and not (was_ours is None and fence in left):  # killed in the middle of it: who knows
            double += (
                after - fence < (lease_s - 0.002) * 1e6
            )  # the lease was not over, and nobody had freed it
        if was_ours:
            foreign += after_at < left[fence]  # the next one had it already
    fences = [fence for fence, _ in granted]
    return Verdict(
        grants=len(granted),
        lost=sum(not was_ours for was_ours in released.values()),
        unfinished=len(set(fences) - set(released)),
        double=double,
        foreign=foreign,
        repeated=len(fences) - len(set(fences)),
    )


class Worker:
    """A process that takes locks when it is asked to (lock_worker.py)."""

    def __init__(self, url: str, folder: Path, *, prefix: str = "") -> None:
        self._log = open(folder / f"locks-{uuid.uuid4().hex[:6]}.log", "w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cache.lock_worker", url, prefix or uuid.uuid4().hex[:6]],
            cwd=ROOT,
            env=environment(PYTHONDONTWRITEBYTECODE=1),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def ask(self, do: str, **question: Any) -> dict[str, Any]:
        self.begin(do, **question)
        return self.answer()

    def begin(self, do: str, **question: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do} | question) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 120)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._log.seek(0)
            raise Broken(f"a worker did not answer:\n{self._log.read()[-800:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
