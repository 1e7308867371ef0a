"""The queue's admin pages, each of which registers itself."""

from __future__ import annotations

from . import alerts as alerts
from . import bulk_actions as bulk_actions
from . import jobs as jobs
from . import queues as queues
from . import schedules as schedules
from . import statistics as statistics
from . import tenants as tenants
from . import workers as workers
from . import workflows as workflows
