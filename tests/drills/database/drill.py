"""What a drill of the database is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

Hold = Callable[["Rig"], "Outcome"]


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


DRILLS: dict[str, Drill] = {}


def drill(name: str, *, quick_s: float = 120.0, full_s: float = 420.0) -> Callable[[Hold], Hold]:
    def register(hold: Hold) -> Hold:
        DRILLS[name] = Drill(name, hold, quick_s, full_s)
        return hold

    return register
