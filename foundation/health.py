"""What an app says about something it depends on; the site gathers these for /readyz and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """name: "database", "redis", "broker" …; detail: one line for a human, without secrets; took_ms: of the probe."""

    name: str
    ok: bool
    detail: str
    took_ms: float = 0.0
    degraded: bool = False  # it serves, and somebody should look; /readyz stays 200

    @property
    def state(self) -> str:
        if not self.ok:
            return "down"
        return "degraded" if self.degraded else "ok"
