"""The site's settings for the drills' workers and for the drill itself: short leases, so that minutes become seconds.

What decides how soon a dead connection is noticed stays as it is in production.
"""

from __future__ import annotations

import os

from brain_project.settings import *  # noqa: F403
from brain_project.settings import BRAIN, CELERY_BROKER_TRANSPORT_OPTIONS, DATABASES

from .rig import LEASE_S

_TEN_YEARS_S = 315_360_000.0
BRAIN["QUEUE"] = {
    "LEASE_S": float(os.environ.get("DRILL_LEASE_S", LEASE_S)),
    "RECONCILE_S": 0.3,
    "REPUBLISH_S": 1.5,
    "QUEUE_REFRESH_S": 1.0,
    "PARK_S": 2.0,
    "BACKOFF_BASE_S": 0.5,
    # A drill that sets the clock a year on wants to see what was done before.
    "RETENTION_S": _TEN_YEARS_S,
    "FIRING_RETENTION_S": _TEN_YEARS_S,
}
# Of a message that a dead worker held: broker delivery waits for this, the ledger does not.
CELERY_BROKER_TRANSPORT_OPTIONS |= {"visibility_timeout": 6, "unacked_restore_interval": 1}
# The drill is one thread, and a pool would take a while to notice that the server has been away.
DATABASES["default"]["OPTIONS"].pop("pool", None)
