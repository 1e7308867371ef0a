"""The ledger's tables, by noun. A job's row is the truth about it; see docs/ledger.md for who writes it."""

from __future__ import annotations

from .alerts import Alert, AlertRule, Notice, Silence
from .bulk import BulkAction
from .jobs import Blob, Job, JobEvent, Tag
from .queues import Delivery, Queue, Tenant, Turns
from .rollups import Rollup, RollupLevel
from .schedules import Firing, Schedule
from .workers import Lease, Worker
from .workflows import Member, Workflow

__all__ = [
    "Alert",
    "AlertRule",
    "Blob",
    "BulkAction",
    "Delivery",
    "Firing",
    "Job",
    "JobEvent",
    "Lease",
    "Member",
    "Notice",
    "Queue",
    "Rollup",
    "RollupLevel",
    "Schedule",
    "Silence",
    "Tag",
    "Tenant",
    "Turns",
    "Worker",
    "Workflow",
]
