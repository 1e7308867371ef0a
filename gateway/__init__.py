"""The gateway: request → match → authenticate → authorise → limit → transform → balance → breaker → upstream
→ transform → record."""

from __future__ import annotations
