"""The ledger's tables, by noun. A job's row is the truth about it; only ledger.py moves it from state to state."""

from __future__ import annotations

from .alerts import Alert, AlertRule, Notice, Silence
from .jobs import Blob, Job, JobEvent
from .queues import Delivery, Queue, Tenant, Turns
from .replays import Replay
from .rollups import Rollup
from .schedules import Firing, Schedule
from .workers import Lease, Worker
from .workflows import Member, Workflow

__all__ = [
    "Alert",
    "AlertRule",
    "Blob",
    "Delivery",
    "Firing",
    "Job",
    "JobEvent",
    "Lease",
    "Member",
    "Notice",
    "Queue",
    "Replay",
    "Rollup",
    "Schedule",
    "Silence",
    "Tenant",
    "Turns",
    "Worker",
    "Workflow",
]
