"""The connection that keeps memory right is lost without anybody being told."""

from __future__ import annotations

import time

from tests.drills.outcome import Outcome
from tests.drills.proxy import proxy

from .drill import drill
from .rig import TIERED, Rig

PING_S = 0.3


@drill("tracker-cut")
def cut(rig: Rig) -> Outcome:
    """Readers reach the server through a proxy whose connections fall silent: open on both sides, nothing passes.

    From then on L1 hears of no change. It may answer what was overwritten until it notices, and no longer.
    """
    store = rig.valkey()
    with proxy(store.port) as relay:
        rig.start("writer", TIERED, store.url)
        for _ in range(3):
            rig.start(
                "reader",
                TIERED,
                f"redis://127.0.0.1:{relay.port}/0",
                ON_DOWN="ignore",
                TRACKER_PING_S=PING_S,
                BREAKER_OPEN_S=0.3,
            )
        rig.until_read()
        times, slowest_s, silent = 3 if rig.quick else 15, 0.0, 0
        for _ in range(times):
            silent += relay.silence()
            slowest_s = max(slowest_s, rig.recovered_s(time.monotonic()))
            rig.alive()
            time.sleep(1.0)
        rig.stop()
    bound_s = 3 * PING_S + 0.1
    seen = rig.seen(bound_s)
    rig.claim(not seen.problems, f"{seen.problems}")
    rig.claim(silent >= 3 * times, f"only {silent} connections fell silent")
    note = f"{silent} connections cut in {times} rounds; {seen.reads:,} reads, the oldest answer {seen.oldest_s:.2f} s old"
    return rig.outcome(
        note, lost=seen.stale + seen.wrong, failed=seen.errors, recovered_s=round(slowest_s, 2)
    )
