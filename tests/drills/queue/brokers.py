"""The broker forgets, goes away, freezes or repeats itself. The rows stay, so the ledger loses nothing by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.drills.proxy import proxy
from tests.drills.servers import Outage, Valkey

from .drill import BOTH, drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_AWAY_S, _QUICK_AWAY_S = 60.0, 10.0


@drill("broker-emptied", databases=BOTH)
def broker_emptied(rig: Rig) -> Outcome:
    """Valkey is killed and comes back with nothing: no AOF, no queues, no connections."""
    rounds = 2 if rig.quick else 10
    rig.worker(), rig.worker()
    for _ in range(rounds):
        rig.enqueue(300)
        rig.progress(20)
        rig.broker.kill()
        rig.broker.forget()
        rig.broker.start()
        rig.blow(lambda: None, held=rig.evidence.waiting())  # their messages are gone
        rig.finish()
    return rig.outcome(f"{rounds} times Valkey killed and restarted empty under load")


@drill("broker-emptied-broker")
def broker_emptied_broker(rig: Rig) -> Outcome:
    """Plain tasks live in the broker alone: what it forgets is gone, and counted."""
    rig.worker()
    rig.enqueue_broker(500, (0.02, 0.04))
    rig.progress(50)
    rig.broker.kill()
    rig.broker.forget()
    rig.broker.start()
    rig.mended()
    rig.enqueue_broker(20)
    rig.settle(15)
    return rig.outcome(
        "plain tasks: Valkey killed and restarted empty; lost is exact and no failure", may_lose=True
    )


@drill("flushall", databases=BOTH)
def flushall(rig: Rig) -> Outcome:
    """The messages of 10,000 jobs are gone before a worker has seen one of them."""
    rig.enqueue(10_000, (0.0, 0.0))
    with rig.broker.client as client:
        client.flushall()
    rig.mended()
    began = time.monotonic()
    rig.worker(), rig.worker()
    rig.finish()
    took_s = time.monotonic() - began
    return rig.outcome(
        f"FLUSHALL with 10,000 jobs queued; all done {took_s:.0f} s after, with the workers' start"
    )


@drill("flushall-broker")
def flushall_broker(rig: Rig) -> Outcome:
    rig.enqueue_broker(1000, (0.0, 0.0))
    with rig.broker.client as client:
        client.flushall()
    rig.worker()
    rig.mended()
    rig.enqueue_broker(20)
    rig.settle(15)
    return rig.outcome("plain tasks: FLUSHALL with 1,000 queued; lost is exact and no failure", may_lose=True)


@drill("broker-stopped")
def broker_stopped(rig: Rig) -> Outcome:
    return _away(rig, _stopped(rig.broker), "stopped")


@drill("broker-frozen")
def broker_frozen(rig: Rig) -> Outcome:
    """Nothing is refused and nothing answered: every wait has to end by itself."""
    return _away(rig, rig.broker.frozen(), "frozen")


def _away(rig: Rig, broken: contextlib.AbstractContextManager[None], how: str) -> Outcome:
    away_s = _QUICK_AWAY_S if rig.quick else _AWAY_S
    rig.worker(), rig.worker("prefork", 2)
    rig.enqueue(100)
    longest_s, calls = 0.0, 0
    with Outage(broken, away_s) as outage:
        while outage.lasts:
            began = time.monotonic()
            rig.enqueue(10)
            longest_s, calls = max(longest_s, time.monotonic() - began), calls + 1
            time.sleep(0.4)
    rig.mended(outage.end)
    rig.enqueue(50)
    rig.finish()
    rig.claim(longest_s < 5, f"enqueue returns within 5 s ({longest_s:.1f} s)")
    return rig.outcome(
        f"broker {how} for {away_s:.0f} s; {calls} enqueues meanwhile, {longest_s:.2f} s at most"
    )


@drill("half-open-threads")
def half_open_threads(rig: Rig) -> Outcome:
    return _half_open(rig, "threads")


@drill("half-open-prefork")
def half_open_prefork(rig: Rig) -> Outcome:
    return _half_open(rig, "prefork")


def _half_open(rig: Rig, pool: str) -> Outcome:
    """Every connection of the only worker goes silent; it has to notice by itself and dial anew."""
    rounds = 1 if rig.quick else 3
    with proxy(rig.broker.port) as relay:
        worker = rig.worker(pool, 2, env={"BROKER_URL": f"redis://127.0.0.1:{relay.port}/0"})
        for _ in range(rounds):
            rig.enqueue(100)
            rig.progress(20)
            silent = relay.silence()
            rig.claim(silent > 0, "the worker's connections go through the proxy")
            rig.blow(lambda: None, held=set(rig.enqueue(50)))  # their messages cannot reach it
            rig.finish()
        rig.claim(worker.runs, "the worker lives on")
        return rig.outcome(f"{rounds} times every connection of a {pool} worker half-open")


@drill("duplicates", databases=BOTH)
def duplicates(rig: Rig) -> Outcome:
    """Each message ten times, before and while two workers run."""
    ids = rig.enqueue(200 if rig.quick else 2000)
    rig.evidence.republish(ids, times=9)
    # Nobody dies: a lease outlasts the moments in which a loaded machine stands still.
    lease = {"DRILL_LEASE_S": "20"}
    rig.worker(env=lease), rig.worker("prefork", 2, env=lease)
    more = rig.enqueue(200 if rig.quick else 2000)
    rig.evidence.republish(more, times=9)
    rig.finish()
    lines = rig.evidence.lines()
    rig.claim(len(lines) == len({job for job, _, _ in lines}), "nothing is run twice")
    return rig.outcome("every message ten times", uncharged=rig.accepted)


@contextlib.contextmanager
def _stopped(broker: Valkey) -> Iterator[None]:
    broker.stop()
    try:
        yield
    finally:
        broker.start()
