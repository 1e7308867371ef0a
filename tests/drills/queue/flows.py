"""Workflows: chains, groups with a callback and batches with three, while worker after worker is killed."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drill import BOTH, drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_KILLS, _QUICK_KILLS = 30, 4
_WIDE = 8  # jobs of a group and of a batch
_DEEP = 5  # of a chain
_EACH = 4  # workflows of each kind at once
_TAKES_S = (0.01, 0.05)


@drill("workflows", databases=BOTH, full_s=1800)
def workflows(rig: Rig) -> Outcome:
    """In every fourth batch one job is a dead letter at first; when the killing is over, its cause is mended."""
    from queue_app import bulk
    from queue_app.models import BulkAction, Job, Workflow
    from queue_app.selection import Selection

    kills = _QUICK_KILLS if rig.quick else _KILLS
    made, broken = _Made(rig), Job.objects.filter(name="drills.breaks")
    fleet = [rig.worker(), rig.worker()]
    for _ in range(kills):
        victim = fleet.pop(0)

        def busy(pid: int = victim.pid) -> bool:
            if rig.evidence.open_jobs() < 200:
                made.more()
            return bool(rig.evidence.held_by(pid))

        rig.until(busy, "the worker is busy")
        time.sleep(random.uniform(0.05, 0.4))
        breaking = {
            str(id) for id in broken.values_list("id", flat=True)
        }  # done when it is mended, and not before
        rig.blow(victim.kill, held=rig.evidence.held_by(victim.pid) - breaking)
        fleet.append(rig.worker())
    dead = broken.filter(state="DEAD_LETTER")
    rig.wait_for(lambda: dead.count() == made.broken, "what breaks is a dead letter")
    rig.wait_for(lambda: len(_runs("on_death")) == made.broken, "every death is told")
    Path(f"{rig.evidence.file}.mended").touch()
    replay = bulk.start("replay", Selection(), actor=None, source="system")
    rig.wait_for(lambda: BulkAction.objects.get(id=replay.id).finished_at is not None, "the replay is over")
    replayed = BulkAction.objects.get(id=replay.id).done
    rig.claim(replayed == made.broken, f"every dead letter is replayed ({replayed} of {made.broken})")
    rig.finish()
    rig.wait_for(lambda: not Workflow.objects.filter(finished_at=None).exists(), "every workflow is over")
    _callbacks(rig, made)
    note = f"{kills} kills under {made.flows} workflows with {made.callbacks} callbacks; {made.broken} batches mended"
    return rig.outcome(note)


class _Made:
    """flows, callbacks, broken: how many workflows, callbacks that are to run, and batches with a dead letter."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self.flows, self.callbacks, self.broken, self.batches = rig, 0, 0, 0, 0

    def more(self) -> None:
        from queue_app import chain, enqueue_workflow, group

        for _ in range(_EACH):
            steps = [self._call("link", number, [number - 1] if number else []) for number in range(_DEEP)]
            self._accept(enqueue_workflow(chain(*steps)), 0)
            wide = group(*[self._call("link", number, []) for number in range(_WIDE)])
            self._accept(enqueue_workflow(wide.then(self._call("callback", 0, list(range(_WIDE))))), 1)
            self._batch()

    def _batch(self) -> None:
        """Its last job is the one that breaks."""
        from queue_app import batch, enqueue_workflow

        breaks = self.batches % 4 == 0
        self.batches, self.broken = self.batches + 1, self.broken + breaks
        calls = [self._call("link", number, []) for number in range(_WIDE - 1)]
        calls.append(self._call("breaks" if breaks else "link", _WIDE - 1, []))
        callbacks = {
            "on_success": self._call("callback", 0, list(range(_WIDE))),
            "on_complete": self._call("callback", 0, None),
            "on_death": self._call("callback", 0, None),
        }
        self._accept(enqueue_workflow(batch(*calls, **callbacks)), 2 + breaks)

    def _call(self, task: str, number: int, expects: list[int] | None) -> Any:
        from queue_app import call

        from . import jobs

        takes = {"takes_s": round(random.uniform(*_TAKES_S), 4)}
        payload = {"file": str(self._rig.evidence.file), "number": number, "expects": expects, **takes}
        return call(getattr(jobs, task), payload)

    def _accept(self, flow: Any, callbacks: int) -> None:
        self._rig.accept([str(job) for job in flow.members.values_list("job", flat=True)])
        self.flows, self.callbacks = self.flows + 1, self.callbacks + callbacks


def _callbacks(rig: Rig, made: _Made) -> None:
    """Those that were to run ran, the others did not; exactly once is the verdict's to say."""
    from queue_app.models import JobEvent, Workflow

    ran = len(rig.evidence.effects())
    rig.claim(ran == made.callbacks, f"every callback ran once ({ran} of {made.callbacks})")
    for role, expected in (
        ("on_success", made.batches),
        ("on_complete", made.batches),
        ("on_death", made.broken),
    ):
        rig.claim(len(_runs(role)) == expected, f"{role} of {expected} batches ({len(_runs(role))} ran)")
    released = JobEvent.objects.filter(detail__action="released").values_list("job", flat=True)
    twice = len(released) - len(set(released))
    rig.claim(not twice, f"each job is let go once ({twice} more)")
    statuses = {str(flow.status) for flow in Workflow.objects.all()}
    rig.claim(statuses == {"completed"}, f"every workflow is completed ({', '.join(sorted(statuses))})")
    wrong = Path(f"{rig.evidence.file}.wrong")
    told = wrong.read_text().splitlines() if wrong.exists() else []
    rig.claim(not told, f"results are handed on ({len(told)} jobs got others: {told[:2]})")


def _runs(role: str) -> set[Any]:
    """Callbacks of this role that are COMPLETED."""
    from queue_app.models import Member

    return set(Member.objects.filter(role=role, outcome="COMPLETED").values_list("job", flat=True))
