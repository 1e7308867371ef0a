"""What a drill is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.drills import servers

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

Hold = Callable[["Rig"], "Outcome"]
Broker = Callable[..., AbstractContextManager[Any]]
BOTH = ("sqlite", "postgresql")


def nothing_missing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Drill:
    """database: sqlite or postgresql. broker: starts it. missing: why it cannot be held here, or nothing.

    quick_s, full_s: after which it gives up.
    """

    name: str
    hold: Hold
    database: str
    broker: Broker
    missing: Callable[[], str]
    quick_s: float
    full_s: float

    def limit_s(self, quick: bool) -> float:
        return self.quick_s if quick else self.full_s


DRILLS: dict[str, Drill] = {}


def drill(
    name: str,
    *,
    databases: tuple[str, ...] = ("postgresql",),
    broker: Broker = servers.valkey,
    missing: Callable[[], str] = nothing_missing,
    quick_s: float = 300.0,
    full_s: float = 900.0,
) -> Callable[[Hold], Hold]:
    """Register a drill, one for each database; where there are several, their names end in it."""

    def register(hold: Hold) -> Hold:
        for database in databases:
            full = f"{name}-{database}" if len(databases) > 1 else name
            DRILLS[full] = Drill(full, hold, database, broker, missing, quick_s, full_s)
        return hold

    return register
