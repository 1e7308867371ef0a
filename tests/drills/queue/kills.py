"""kill -9: of a busy worker's whole process group, of a child of its pool, of the recorder."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

from .drill import BOTH, drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig, Worker

KILLS, QUICK_KILLS = 100, 5
_SLOTS = {"threads": 4, "prefork": 2}


@drill("kill9-threads-ledger", databases=BOTH, full_s=3600)
def kill9_threads_ledger(rig: Rig) -> Outcome:
    return _ledger(rig, "threads")


@drill("kill9-prefork-ledger", databases=BOTH, full_s=3600)
def kill9_prefork_ledger(rig: Rig) -> Outcome:
    return _ledger(rig, "prefork")


@drill("kill9-threads-broker", databases=BOTH, full_s=3600)
def kill9_threads_broker(rig: Rig) -> Outcome:
    return _broker(rig, "threads")


@drill("kill9-prefork-broker", databases=BOTH, full_s=3600)
def kill9_prefork_broker(rig: Rig) -> Outcome:
    return _broker(rig, "prefork")


def _ledger(rig: Rig, pool: str) -> Outcome:
    """Two workers; the older one is killed while it holds jobs, and replaced."""
    kills = QUICK_KILLS if rig.quick else KILLS
    rig.enqueue(300)
    fleet = [_worker(rig, pool), _worker(rig, pool)]
    for _ in range(kills):
        victim = fleet.pop(0)
        rig.busy(victim)
        time.sleep(random.uniform(0.05, 0.4))
        rig.blow(victim.kill, victim)
        fleet.append(_worker(rig, pool))
    rig.finish()
    return rig.outcome(f"{kills} kills of a {pool} worker's group while it held jobs")


def _broker(rig: Rig, pool: str) -> Outcome:
    """The same with plain tasks: what a dead worker held comes back with the visibility timeout."""
    kills = QUICK_KILLS if rig.quick else KILLS
    rig.enqueue_broker(200)
    fleet = [_worker(rig, pool), _worker(rig, pool)]
    for _ in range(kills):
        victim = fleet.pop(0)
        rig.progress(20, rig.top_up_broker)
        time.sleep(random.uniform(0.05, 0.4))
        rig.blow(victim.kill)
        fleet.append(_worker(rig, pool))
    rig.enqueue_broker(50)
    _until_recorded(rig)
    return rig.outcome(f"{kills} kills of a {pool} worker's group under plain tasks")


@drill("kill9-child")
def kill9_child(rig: Rig) -> Outcome:
    """One job of the pool's two is cut off; the other one, the worker and the queue go on."""
    kills = QUICK_KILLS if rig.quick else 30
    rig.enqueue(300)
    worker = _worker(rig, "prefork")
    for _ in range(kills):
        rig.busy(worker)
        rig.progress(10, rig.top_up)
        rig.blow(lambda: os.kill(random.choice(worker.children()), signal.SIGKILL))
    rig.progress(10, rig.top_up)
    rig.claim(worker.runs, "the worker outlives its children")
    rig.finish()
    crashes = sum(fate.crashes for fate in rig.evidence.fates(with_steps=False))
    rig.claim(crashes <= kills, f"at most one crash is charged for each of {kills} kills ({crashes} were)")
    return rig.outcome(f"{kills} kills of a pool's child")


@drill("kill9-recorder", full_s=900)
def kill9_recorder(rig: Rig) -> Outcome:
    """The worker that leads is killed in mid-stream; another one takes over where the rows stand."""
    kills = 2 if rig.quick else 20
    rig.enqueue_broker(200)
    fleet = [_worker(rig, "threads"), _worker(rig, "threads")]
    for _ in range(kills):
        rig.progress(50, rig.top_up_broker)
        victim = rig.until(lambda: _leader(rig, fleet), "one of the living records")
        fleet.remove(victim)
        rig.blow(victim.kill)
        fleet.append(_worker(rig, "threads"))
    rig.enqueue_broker(50)
    _until_recorded(rig)
    return rig.outcome(f"{kills} kills of the recorder in mid-stream")


def _leader(rig: Rig, fleet: list[Worker]) -> Worker | None:
    """The one that records; None while the lease of a dead one lasts."""
    rig.top_up_broker()
    pid = rig.evidence.recorder()
    return next((worker for worker in fleet if worker.pid == pid), None)


def _worker(rig: Rig, pool: str) -> Worker:
    return rig.worker(pool, _SLOTS[pool])


def _until_recorded(rig: Rig) -> None:
    """Until every accepted task has run and its record says so."""

    def over() -> bool:
        ended = {fate.id for fate in rig.evidence.fates(with_steps=False) if fate.state == "COMPLETED"}
        return ended.issuperset(rig.accepted)

    rig.wait_for(over, "every task is recorded as COMPLETED")
