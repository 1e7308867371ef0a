"""Statistics as if they had been counted: of all tenants, and of the one that is named."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from queue_app import rollup_rows
from queue_app.histograms import Tally
from queue_app.levels import Key


def put(step_s: int, at: datetime, queue: str, name: str = "send", tenant: str = "", **tally: Any) -> None:
    """tally: of Tally. All time knows no tenant."""
    whose = {"", tenant} if step_s else {""}
    rollup_rows.add({Key(step_s, at, queue, name, one): Tally(**tally) for one in whose})
