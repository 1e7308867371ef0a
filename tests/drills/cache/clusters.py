"""A Valkey cluster of six nodes: a primary is killed, and its replica takes over."""

from __future__ import annotations

import os
import signal
import time

from tests import servers
from tests.drills.outcome import Outcome

from .drill import drill
from .rig import REDIS, TIERED, Rig


@drill("cluster-failover", quick_s=180.0, full_s=600.0)
def failover(rig: Rig) -> Outcome:
    """Nobody reads another key's value or raises under `ignore`; all goes on when the replica has taken over.

    Replication is asynchronous: an acknowledged write may go down with its primary. What was read before may then be
    newer than what is read after, so versions are held against what L1 may keep, not against the writer's.
    """
    times, slowest_s = 1 if rig.quick else 3, 0.0
    for number in range(times):
        with servers.valkey_cluster() as cluster:
            prefix = f"cluster{number}"
            for backend, its in ((REDIS, prefix), (TIERED, f"{prefix}t")):
                for role in ("writer", "reader", "counter"):
                    rig.start(
                        role,
                        backend,
                        cluster.url,
                        prefix=its,
                        CLUSTER=True,
                        ON_DOWN="ignore",
                        TRACKER_PING_S=0.3,
                    )
            rig.until_read(200 * (number + 1), timeout_s=40.0)
            os.kill(cluster.primaries[0].pid, signal.SIGKILL)
            slowest_s = max(
                slowest_s, rig.recovered_s(time.monotonic(), ("reader", "writer"), timeout_s=60.0)
            )
            rig.alive()
            time.sleep(1.0)
            rig.stop()
    seen = rig.seen_apart(grace_s=15.0)  # a failover, and what was lost in it is written again within
    for one in seen:
        rig.claim(not one.problems, f"{one.problems}")
    errors = [line for line in rig.lines("writer", "reader", "counter") if line["do"] == "error"]
    rig.claim(not errors, f"{len(errors)} calls raised: {(errors or ['?'])[0]}")
    note = f"{times} primaries killed; {sum(one.reads for one in seen):,} reads"
    return rig.outcome(note, lost=sum(one.stale + one.wrong for one in seen), recovered_s=round(slowest_s, 2))
