"""A drill whose rig starts all that it needs, as the cache's and the database's: what one is, its list, how one is held."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests import servers as private

from .holding import keep
from .outcome import Outcome

Hold = Callable[[Any], Outcome]  # takes the rig


@dataclass(frozen=True, slots=True)
class Drill:
    """quick_s, full_s: after which it gives up."""

    name: str
    hold: Hold
    quick_s: float
    full_s: float

    def missing(self) -> str:
        return ""

    def limit_s(self, quick: bool) -> float:
        return self.quick_s if quick else self.full_s


class Lister(Protocol):
    def __call__(self, name: str, *, quick_s: float = ..., full_s: float = ...) -> Callable[[Hold], Hold]: ...


def lister(drills: dict[str, Drill]) -> Lister:
    """A decorator that puts drills into this list."""

    def drill(name: str, *, quick_s: float = 120.0, full_s: float = 420.0) -> Callable[[Hold], Hold]:
        def register(hold: Hold) -> Hold:
            drills[name] = Drill(name, hold, quick_s, full_s)
            return hold

        return register

    return drill


class MakesRig(Protocol):
    def __call__(self, name: str, home: Path, *, quick: bool) -> AbstractContextManager[Any]: ...


def holder(make: MakesRig) -> Callable[[Drill, bool], Outcome]:
    """For `holding.main`: in a folder of its own, which is kept when the drill fails."""

    def hold(drill: Drill, quick: bool) -> Outcome:
        with private.scratch("drill") as home, make(drill.name, home, quick=quick) as rig:
            passed = False
            try:
                outcome = drill.hold(rig)
                passed = outcome.passed
                return outcome
            finally:
                if not passed:
                    keep(home, drill.name)

    return hold
