"""How much is measured, against whom; a side that cannot take part or proves nothing is told, with its reason."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.environments import Unavailable
from benchmarks.figures import Figure
from benchmarks.processes import Broken
from tests.servers import Missing

from . import asked, measure, proof
from .ground import Ground
from .sides import LOW_PER_S, Settings, Side, Started

START_S = 60.0


@dataclass(frozen=True, slots=True)
class Size:
    passes: int
    load_s: float  # of one run
    warm_s: float
    paced_s: float
    rounds: int  # of each body
    skews_ms: tuple[int, ...]
    offered_s: float  # of one case of admission
    many_routes: int


FULL = Size(
    passes=4,
    load_s=6.0,
    warm_s=2.0,
    paced_s=6.0,
    rounds=3,
    skews_ms=(1, 5, 20, 100),
    offered_s=6.0,
    many_routes=5_000,
)
QUICK = Size(
    passes=2,
    load_s=2.0,
    warm_s=1.0,
    paced_s=3.0,
    rounds=1,
    skews_ms=(100,),
    offered_s=4.0,
    many_routes=5_000,
)
EXPECTED = (Unavailable, Broken, Missing, OSError)


@dataclass(slots=True)
class Plan:
    size: Size
    peers: Sequence[str]  # names as in --peers
    ground: Ground
    notes: list[str] = field(default_factory=list)
    _limiting: set[str] = field(default_factory=set)  # sides seen to refuse what is over the limit

    def wants(self, side: Side) -> bool:
        return side.peer is None or side.peer in self.peers

    def up(self, stack: ExitStack, side: Side, settings: Settings | None = None) -> Started | None:
        """The side, warm and proven, until the stack ends; None, and a note, when that cannot be had."""
        if not self.wants(side):
            return None
        say(f"{side.title} …")
        try:
            return self._proven(stack, side, settings or Settings())
        except EXPECTED as error:
            self.note(f"{side.title}: {error}")
            return None

    def attempt(self, what: str, work: Callable[[], list[Figure]]) -> list[Figure]:
        """The figures, or none and a note: one that cannot be had does not end the others' run."""
        say(f"{what} …")
        try:
            return work()
        except EXPECTED as error:
            self.note(f"{what}: {error}")
            return []

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            say(text)

    def requests(self, write: Callable[[Path], Path] = asked.same_token) -> Path:
        return write(self.ground.folder("requests") / "requests")

    def _proven(self, stack: ExitStack, side: Side, settings: Settings) -> Started:
        if side.limits and side.key not in self._limiting:
            with ExitStack() as short:
                started = side.start(self.ground, short, Settings(limit_per_s=LOW_PER_S))
                started.process.wait_for(proof.serves(started.port), START_S)
                proof.refuses_over_limit(started.port, LOW_PER_S)
            self._limiting.add(side.key)
        started = side.start(self.ground, stack, settings)
        started.process.wait_for(proof.serves(started.port), START_S)
        proof.balances(started.port)
        proof.unknown_path_is_404(started.port)
        if side.checks_tokens:
            proof.refuses_bad_tokens(started.port, self.ground.upstream)
        return started


@dataclass(slots=True)
class Contest:
    """Sides that are up together and measured in turns. One that fails its proof in any pass has no row."""

    plan: Plan
    stack: ExitStack
    up: dict[str, tuple[Side, Started]] = field(default_factory=dict)
    served: Counter[str] = field(default_factory=Counter)  # of each side, warming up included

    def enter(self, side: Side, settings: Settings | None = None, key: str = "") -> None:
        started = self.plan.up(self.stack, side, settings)
        if started is not None:
            self.up[key or side.key] = side, started

    def title(self, key: str) -> str:
        side, started = self.up[key]
        return f"{side.title} {started.version}".strip() if key == side.key else key

    def samples(
        self, part: str, requests: Path, *, connections: int = measure.CONNECTIONS
    ) -> dict[str, list[measure.Sample]]:
        size, found = self.plan.size, {key: list[measure.Sample]() for key in self.up}
        keys = list(self.up)
        for key in keys:
            self._run(part, key, requests, size.warm_s, connections, found)
        for samples in found.values():
            samples.clear()
        for turn in measure.in_turns(len(keys), size.passes):
            for number in turn:
                self._run(part, keys[number], requests, size.load_s, connections, found)
        return found

    def _run(
        self,
        part: str,
        key: str,
        requests: Path,
        seconds: float,
        connections: int,
        found: dict[str, list[measure.Sample]],
    ) -> None:
        if key not in found:
            return
        try:
            sample = measure.saturated(
                self.up[key][1], self.plan.ground.upstream, requests, seconds, connections
            )
        except EXPECTED as error:
            del found[key]
            self.plan.note(f"{part}: {self.title(key)} has no row: {error}")
            return
        found[key].append(sample)
        self.served[key] += sample.served
        say(f"{part}: {self.title(key)}: {sample.cpu_us:.1f} µs, {sample.per_s:,.0f} /s")


def contested(
    plan: Plan, part: str, sides: Iterable[Side], requests: Path
) -> tuple[dict[str, list[measure.Sample]], dict[str, str]]:
    """These sides against each other, as they are: the samples and the titles of those that have a row, by key."""
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        for side in sides:
            contest.enter(side)
        samples = contest.samples(part, requests)
        return samples, {key: contest.title(key) for key in samples}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
