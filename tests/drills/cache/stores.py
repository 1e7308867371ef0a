"""The server behind the cache is gone: killed and started with nothing in it, or frozen."""

from __future__ import annotations

import time

from tests.drills.outcome import Outcome

from .drill import drill
from .rig import REDIS, TIERED, Rig

SECONDS = {True: 1.5, False: 4.0}  # without a server, by --quick


@drill("valkey-emptied")
def emptied(rig: Rig) -> Outcome:
    """Under load: nobody reads a value that was overwritten, `ignore` raises nothing, and all goes on by itself."""
    store = rig.valkey()
    for backend, prefix in ((REDIS, "plain"), (TIERED, "tiers")):
        for role in ("writer", "reader", "reader"):
            rig.start(role, backend, store.url, prefix=prefix, ON_DOWN="ignore", TRACKER_PING_S=0.2)
        rig.start("counter", backend, store.url, prefix=prefix, ON_DOWN="ignore")
    rig.start("loader", TIERED, store.url, prefix="tiers", ON_DOWN="ignore", TRACKER_PING_S=0.2)
    rig.until_read()
    times, slowest_s = 3 if rig.quick else 20, 0.0
    for _ in range(times):
        store.kill()
        store.forget()
        time.sleep(SECONDS[rig.quick] / 2)
        store.start()
        slowest_s = max(slowest_s, rig.recovered_s(time.monotonic()))
        rig.alive()
        time.sleep(0.5)
    rig.stop()
    return _told(rig, f"killed and emptied {times} times", slowest_s)


@drill("valkey-frozen")
def frozen(rig: Rig) -> Outcome:
    """It accepts and does not answer. Readers wait for one timeout each, then the breaker answers for it."""
    store = rig.valkey()
    for role in ("writer", "reader", "reader", "loader"):
        rig.start(role, TIERED, store.url, ON_DOWN="ignore", TRACKER_PING_S=0.2, BREAKER_OPEN_S=0.5)
    rig.until_read()
    times, slowest_s = 2 if rig.quick else 10, 0.0
    for _ in range(times):
        with store.frozen():
            time.sleep(SECONDS[rig.quick])
        slowest_s = max(slowest_s, rig.recovered_s(time.monotonic()))
        rig.alive()
    rig.stop()
    return _told(rig, f"frozen {times} times for {SECONDS[rig.quick]} s", slowest_s)


def _told(rig: Rig, what: str, recovered_s: float) -> Outcome:
    """Each writer's keys are one prefix's, so the two backends of a drill are judged apart."""
    seen = rig.seen_apart()
    reads, stale = sum(one.reads for one in seen), sum(one.stale + one.wrong for one in seen)
    errors = sum(one.errors for one in seen)
    counted = [line for line in rig.lines("counter", "loader") if line["do"] == "error"]
    rig.claim(not errors and not counted, f"{errors + len(counted)} calls raised: {(counted or ['?'])[0]}")
    foreign = [line for line in rig.lines("loader") if line["do"] == "loading" and line["of"] != line["key"]]
    rig.claim(not foreign, f"{len(foreign)} loads of another key")
    for one in seen:
        rig.claim(not one.problems, f"{one.problems}")
    return rig.outcome(
        f"{what}; {reads:,} reads", lost=stale, failed=errors, recovered_s=round(recovered_s, 2)
    )
