"""Poison: jobs that kill the process they run in. They end as dead letters, and nobody else pays for them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from .drill import BOTH, drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

INNOCENT = (0.0, 0.003)  # shorter than what a heartbeat would name as running
_DEATHS = 8  # after which a supervisor would give up; four are expected of one poison


@drill("poison-child")
def poison_child(rig: Rig) -> Outcome:
    from . import jobs

    worker = rig.worker("prefork", 2)
    innocent = rig.enqueue(200, INNOCENT)
    poison = [rig.enqueue_one(jobs.kill_process) for _ in range(1 if rig.quick else 5)]
    began = time.monotonic()
    innocent += rig.enqueue(200, INNOCENT)
    rig.finish()
    rig.recovered_in(time.monotonic() - began)
    rig.claim(worker.runs, "the worker outlives its children")
    _three_each(rig, poison)
    return rig.outcome(
        f"{len(poison)} jobs that kill their pool's child among {len(innocent)}",
        poison=poison,
        uncharged=innocent,
    )


@drill("poison-worker-threads", databases=BOTH)
def poison_worker_threads(rig: Rig) -> Outcome:
    return _poison_worker(rig, "threads", 4)


@drill("poison-worker-prefork")
def poison_worker_prefork(rig: Rig) -> Outcome:
    return _poison_worker(rig, "prefork", 2)


def _poison_worker(rig: Rig, pool: str, slots: int) -> Outcome:
    """A supervisor starts the worker again and again; the poison may take it down four times: once free, three charged.

    recovered_s holds the starts of the workers as well.
    """
    from . import jobs

    innocent = rig.enqueue(150, INNOCENT)
    poison = rig.enqueue_one(jobs.kill_worker, drill=os.getpgrp())
    innocent += rig.enqueue(150, INNOCENT)
    deaths = 0
    began = time.monotonic()
    worker = rig.worker(pool, slots, may_end=True)
    while deaths < _DEATHS and rig.evidence.open_jobs():
        rig.in_time()
        if not worker.runs:
            deaths += 1
            worker = rig.worker(pool, slots, may_end=True)
        time.sleep(0.05)
    rig.recovered_in(time.monotonic() - began)
    rig.claim(deaths <= 4, f"at most four deaths ({deaths} were)")
    _three_each(rig, [poison])
    return rig.outcome(
        f"a job that kills its {pool} worker: {deaths} deaths", poison=[poison], uncharged=innocent
    )


def _three_each(rig: Rig, poison: list[str]) -> None:
    crashes = [fate.crashes for fate in rig.evidence.fates(with_steps=False) if fate.id in poison]
    rig.claim(set(crashes) == {3}, f"three crashes are charged to each poison ({crashes} were)")
