"""How much is measured, against whom; sides that cannot take part are told once, with their reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.environments import Unavailable, runtime
from benchmarks.figures import Figure
from benchmarks.processes import Broken
from tests.servers import Missing

from .sides import FOLDERS, SIDES, Side
from .stage import PROCESSES, THREADS, Running, Stage


@dataclass(frozen=True, slots=True)
class Size:
    pairs: int  # A B, B A, …
    drain_s: float  # about how long a drain takes; the number of jobs follows from the side's speed
    tasks: tuple[str, ...]
    enqueued: int  # jobs a round, one call each
    latency_jobs: int
    latency_rounds: int
    idle_s: float
    backlog: tuple[int, int]
    backlog_pairs: int
    memory_jobs: int
    recorded: int  # jobs whose events the recorder finds
    page_jobs: int  # in the tables when the pages are asked for
    page_requests: int  # of each page
    rollup_s: float  # about how long a drain takes in which statistics are counted
    dead_letters: int  # to replay


FULL = Size(
    pairs=5,
    drain_s=2.0,
    tasks=("noop", "work_1ms"),
    enqueued=2_000,
    latency_jobs=300,
    latency_rounds=3,
    idle_s=10.0,
    backlog=(1_000, 100_000),
    backlog_pairs=5,
    memory_jobs=200_000,
    recorded=20_000,
    page_jobs=1_000_000,
    page_requests=20,
    rollup_s=12.0,
    dead_letters=10_000,
)
QUICK = Size(
    pairs=3,
    drain_s=0.5,
    tasks=("noop",),
    enqueued=300,
    latency_jobs=60,
    latency_rounds=2,
    idle_s=3.0,
    backlog=(1_000, 10_000),
    backlog_pairs=2,
    memory_jobs=20_000,
    recorded=5_000,
    page_jobs=100_000,
    page_requests=7,
    rollup_s=6.0,
    dead_letters=2_000,
)
LABELS = {"noop": "no-op", "work_1ms": "1 ms"}


@dataclass(slots=True)
class Plan:
    size: Size
    peers: Sequence[str]  # names as in --peers
    stage: Stage
    goals_only: bool = False  # leave out what no goal is set for
    notes: list[str] = field(default_factory=list)

    def wants(self, key: str) -> bool:
        """Whether this side is ours or one of the chosen peers."""
        side = SIDES[key]
        return side.environment is None or side.environment in self.peers

    def up(self, *keys: str, processes: int = PROCESSES, threads: int = THREADS) -> list[Running]:
        """These sides and no others. Raises Unavailable, Broken or Missing."""
        for key in keys:
            self._require(SIDES[key])
        return self.stage.only(*(SIDES[key] for key in keys), processes=processes, threads=threads)

    def available(self, keys: Sequence[str]) -> list[str]:
        """Those of the wanted sides that can be started, the others told."""
        found = []
        for key in filter(self.wants, keys):
            try:
                self._require(SIDES[key])
            except Unavailable as reason:
                self.note(f"{SIDES[key].title}: {reason}")
            else:
                found.append(key)
        return found

    def attempt(self, what: str, measure: Callable[[], list[Figure]]) -> list[Figure]:
        """The figures, or none and a note: one side that does not work does not end the others' run."""
        try:
            return measure()
        except (Unavailable, Broken, Missing) as error:
            reason = f"{error} is not installed" if isinstance(error, Missing) else str(error)
            self.note(f"{what}: {reason}")
            return []

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            say(text)

    def _require(self, side: Side) -> None:
        if side.environment:
            runtime(side.environment, FOLDERS)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
