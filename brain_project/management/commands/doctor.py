"""`manage.py doctor`: system checks, the health of every dependency and where things are, in one look."""

from __future__ import annotations

import platform
from typing import Any

import django
from django.conf import settings
from django.core import checks

from brain_project import health, platform_state, preflight
from foundation.commands import DEGRADED, FAILED, OK, BrainCommand


class Command(BrainCommand):
    help = "Check settings, database, Redis and broker. Exit code 0 well, 1 something is down, 3 warnings or something degraded."
    is_brief = True

    def bare(self, **options: Any) -> int:
        messages = checks.run_checks()
        parts = health.gather()
        facts = [["python", platform.python_version()], ["django", django.get_version()], *_places()]
        self.table(["fact", "value"], facts)
        self.line("")
        columns = ["dependency", "state", "took_ms", "detail"]
        rows = [[part.name, part.state, f"{part.took_ms:.1f}", part.detail] for part in parts]
        self.table(columns, rows)
        for message in messages:
            self.line(f"\n{message}")
        self.document(
            {
                "facts": dict(facts),
                "dependencies": [dict(zip(columns, row, strict=True)) for row in rows],
                "checks": [
                    {"id": message.id, "message": message.msg, "hint": message.hint} for message in messages
                ],
            }
        )
        if not all(part.ok for part in parts) or any(message.is_serious() for message in messages):
            return FAILED
        return DEGRADED if messages or any(part.degraded for part in parts) else OK


def _places() -> list[list[str]]:
    pid = platform_state.running_pid(settings.BRAIN_DATA_DIR)
    return [
        ["environment", settings.BRAIN_ENV],
        ["data directory", str(settings.BRAIN_DATA_DIR)],
        ["database", preflight.without_password(settings.DATABASE_URL) or "embedded SQLite"],
        ["redis", preflight.without_password(settings.REDIS_URL)],
        ["broker", preflight.without_password(settings.BROKER_URL)],
        ["up", f"running, pid {pid}" if pid else "not running"],
    ]
