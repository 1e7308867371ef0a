"""`./brain status`: what runs, where, and whether it answers."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from brain_project import platform_state, readiness
from foundation.commands import DEGRADED, FAILED, OK, BrainCommand

COLUMNS = ["process", "pid", "state", "log"]


class Command(BrainCommand):
    help = "Show the processes of the running platform and whether they answer."
    is_brief = True

    def define(self, parser: CommandParser) -> None:
        parser.add_argument("--data-dir", help="where everything is kept (default .brain)")

    def bare(self, **options: Any) -> int:
        pid = platform_state.running_pid(settings.BRAIN_DATA_DIR)
        state = platform_state.read(settings.BRAIN_DATA_DIR)
        if pid is None or not state.get("pids"):
            self.line("not running" if pid is None else f"starting or stopping: pid {pid}")
            self.document({"running": pid is not None, "pid": pid, "processes": []})
            return FAILED
        silent = {probe.name for probe in readiness.probes(state) if not probe.answers()}
        rows = [
            [name, child, _says(name, child, silent), state["logs"].get(name, "")]
            for name, child in state["pids"].items()
        ]
        self.document(
            {"running": True, "pid": pid, "processes": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
        )
        self.table(COLUMNS, rows)
        return DEGRADED if any(row[2] != "running" for row in rows) or silent else OK


def _says(name: str, pid: int, silent: set[str]) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    return "not answering" if name in silent else "running"
