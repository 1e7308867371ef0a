"""The ledger's tables, by noun. A job's row is the truth about it; only ledger.py moves it from state to state."""

from __future__ import annotations

from .jobs import Blob, Job, JobEvent
from .queues import Delivery, Queue, Tenant, Turns
from .replays import Replay
from .rollups import Rollup
from .schedules import Firing, Schedule
from .workers import Lease, Worker
from .workflows import Member, Workflow

__all__ = [
    "Blob",
    "Delivery",
    "Firing",
    "Job",
    "JobEvent",
    "Lease",
    "Member",
    "Queue",
    "Replay",
    "Rollup",
    "Schedule",
    "Tenant",
    "Turns",
    "Worker",
    "Workflow",
]
