"""BRAIN["QUEUE"]: defaults and units. Read `conf()` where a value is used, never at import time."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.conf import Bound, setting


@dataclass(frozen=True, slots=True)
class QueueConf:
    DEFAULT_QUEUE: str = setting("default")  # of a @task that names none
    EAGER: bool = setting(
        False
    )  # jobs run in the process that enqueues them, on commit; for development and tests
    MAX_RETRIES: int = setting(3, low=0, high=100)  # runs after the first one, then the dead letters
    BACKOFF_BASE_S: float = setting(
        2.0, low=0, high=3600
    )  # longest wait before the first retry; doubles each time
    BACKOFF_MAX_S: float = setting(600.0, low=0, high=86_400)  # the wait never grows above this
    MAX_CRASHES: int = setting(3, low=1, high=100)  # runs that ended with their worker, then the dead letters
    MAX_PAYLOAD_BYTES: int = setting(16_777_216, low=64, high=67_108_864)  # of JSON text
    OFFLOAD_BYTES: int = setting(
        65_536, low=1024, high=1_048_576
    )  # a larger payload is kept beside its job's row, compressed
    MAX_RESULT_BYTES: int = setting(65_536, low=64, high=16_777_216)  # a larger result is not kept
    MAX_TRACEBACK_BYTES: int = setting(16_384, low=256, high=1_048_576)  # of a failure; the end is kept
    SOFT_TIME_LIMIT_S: float | None = setting(
        None, low=0.01, high=2_592_000
    )  # then SoftTimeLimitExceeded is raised in a run whose task and queue name no limit
    TIME_LIMIT_S: float = setting(3600.0, low=0.01, high=2_592_000)  # then such a run is ended
    RECYCLE_S: float = setting(
        30.0, low=0.1, high=86_400
    )  # a thread that stays stuck this long after its run was ended makes its worker start anew
    WARM_STOP_S: float = setting(
        25.0, low=0.1, high=86_400
    )  # runs may go on this long after SIGTERM; the worker has left a few seconds later
    STALLED_S: float = setting(
        60.0, low=1, high=86_400
    )  # a worker that makes no progress for this long with jobs waiting ends with an error
    PARK_S: float = setting(
        30.0, low=0.1, high=86_400
    )  # a job whose task no worker here knows is looked at again after this long
    AGE_S: float = setting(
        600.0, low=1, high=604_800
    )  # a job that waits for this long moves to the next higher class
    LEASE_S: float = setting(
        10.0, low=1, high=600
    )  # a worker silent for this long counts as dead; beats every third
    RECONCILE_S: float = setting(1.0, low=0.1, high=60)  # between two looks for due, lost and stale jobs
    REPUBLISH_S: float = setting(
        10.0, low=1, high=3600
    )  # a wake-up older than this on an empty queue was lost
    PUBLISH_TIMEOUT_S: float = setting(2.0, low=0.1, high=30)  # a broker silent for this long counts as down
    QUEUE_REFRESH_S: float = setting(2.0, low=0.1, high=5)  # between two looks for new and paused queues
    RECORDER_LAG_S: float = setting(
        60.0, low=1, high=86_400
    )  # an event of broker delivery that waits longer to be recorded makes the recorder's health degraded
    SCHEDULE_GRACE_S: float = setting(
        60.0, low=1, high=86_400
    )  # a moment of a schedule that fires later than this was missed; LEASE_S · 4/3 is normal after kill -9
    FIRING_RETENTION_S: float = setting(
        2_592_000.0, low=3600, high=315_360_000
    )  # of what schedules did: 30 days
    VERSION: str = setting("")  # of the code, a release or a commit, as workers' rows show it; BRAIN_VERSION
    ROLLUPS: bool = setting(True)  # statistics are counted from the history
    ROLLUP_MINUTES_S: float = setting(
        172_800.0, low=3600, high=2_592_000
    )  # levels of 1, 5 and 15 minutes: 48 hours
    ROLLUP_HOURS_S: float = setting(
        2_592_000.0, low=86_400, high=31_536_000
    )  # levels of 1 and 6 hours, kept no shorter than minutes: 30 days
    ROLLUP_DAYS_S: float = setting(34_560_000.0, low=86_400, high=315_360_000)  # days: 400 days
    ALERTS: bool = setting(True)  # the rules are looked at; see docs/queue-operating.md#alerts
    ALERT_LOOK_S: float = setting(15.0, low=0.1, high=600)  # between two looks at the rules
    ALERT_WEBHOOKS: tuple[str, ...] = setting(())  # URLs that are told; BRAIN_ALERT_WEBHOOKS
    ALERT_SECRET: str = setting("")  # signs what they are told; empty: unsigned; BRAIN_ALERT_SECRET
    ALERT_MAIL: tuple[str, ...] = setting(())  # addresses that are told; BRAIN_ALERT_MAIL
    ALERT_TIMEOUT_S: float = setting(5.0, low=0.1, high=30)  # of one attempt to tell
    ALERT_RETENTION_S: float = setting(
        2_592_000.0, low=3600, high=315_360_000
    )  # of resolved alerts, ended silences and notices: 30 days
    RETENTION_S: float = setting(604_800.0, low=0, high=315_360_000)  # of completed and cancelled jobs
    DEAD_RETENTION_S: float = setting(15_552_000.0, low=0, high=315_360_000)  # of dead letters: 180 days
    BULK_RETENTION_S: float = setting(
        2_592_000.0, low=60, high=315_360_000
    )  # of what bulk actions did: 30 days
    WORKER_RETENTION_S: float = setting(86_400.0, low=60, high=31_536_000)  # rows of workers that are gone


conf = Bound("QUEUE", QueueConf)
