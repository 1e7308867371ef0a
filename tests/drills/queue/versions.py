"""Two versions of the code: the new one has dropped a task that is still enqueued."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .drill import drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig


@drill("dropped-task")
def dropped_task(rig: Rig) -> Outcome:
    """Parked by the workers that do not know it, uncharged; run by the first that does. The rest is not held up."""
    from .dropped import dropped

    rig.worker()
    ids = [rig.enqueue_one(dropped) for _ in range(20)]
    others = rig.enqueue(200)
    rig.until(
        lambda: {job for job, _ in rig.evidence.finished()} >= set(others), "the rest of the queue is done"
    )
    time.sleep(3)
    states = {rig.evidence.state(id) for id in ids}
    rig.claim(states <= {"PENDING", "PROCESSING"}, f"the unknown jobs wait ({states})")
    rig.blow(lambda: rig.worker(include=("jobs", "dropped")), held=set(ids))
    rig.finish(60)
    return rig.outcome(
        "20 jobs of a dropped task beside 200 others; then a worker that knows it", uncharged=rig.accepted
    )
