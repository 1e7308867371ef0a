"""Backups: database → dump (one snapshot, counted) → verified (restored beside it) → file; and back.

`every`, `take`, `verify`, `plan`, `restore` and `start` are what the command line and the admin call.
"""

from .clients import environment
from .detached import log, start
from .files import Progress, directory
from .history import record
from .listing import Backup, every
from .manifest import BackupFailed
from .restoring import Plan, Restored, plan, restore
from .taking import prune, take
from .verifying import verify

__all__ = [
    "Backup", "BackupFailed", "Plan", "Progress", "Restored", "directory", "environment", "every", "log", "plan", "prune", "record", "restore", "start", "take", "verify",
]  # fmt: skip
