"""Signals short of death: SIGSTOP for longer than the lease, SIGTERM and SIGQUIT while jobs run."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from .drill import BOTH, drill
from .rig import LEASE_S

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

LONG = (0.4, 0.8)  # so that the freeze finds them in the middle
_SLOTS = {"threads": 4, "prefork": 2}


@drill("sigstop-threads", databases=BOTH)
def sigstop_threads(rig: Rig) -> Outcome:
    return _frozen(rig, "threads")


@drill("sigstop-prefork")
def sigstop_prefork(rig: Rig) -> Outcome:
    return _frozen(rig, "prefork")


def _frozen(rig: Rig, pool: str) -> Outcome:
    """Another worker takes over meanwhile; what the sleeper finishes late must change nothing."""
    rounds = 2 if rig.quick else 10
    frozen, other = rig.worker(pool, _SLOTS[pool]), rig.worker("threads", 4)
    refused = 0
    for number in range(rounds):
        rig.enqueue(60, LONG)
        rig.busy(frozen)
        rig.progress(4, rig.top_up)
        rig.blow(lambda: frozen.send(signal.SIGSTOP), frozen)
        time.sleep(2 * LEASE_S + 0.5)
        frozen.send(signal.SIGCONT)
        rig.finish()
        lapsed = frozen.log.count("lease_lapsed")
        rig.claim(lapsed > number, f"round {number + 1}: the sleeper finds its lease lapsed")
        refused = frozen.log.count("job_result_refused")
    rig.claim(refused > 0, "the fence refuses late results")
    rig.claim(frozen.runs and other.runs, "both workers live on")
    return rig.outcome(f"{rounds} freezes of a {pool} worker for two leases: {refused} late results refused")


@drill("sigterm-threads", full_s=900)
def sigterm_threads(rig: Rig) -> Outcome:
    return _stopped(rig, "threads", signal.SIGTERM)


@drill("sigterm-prefork", full_s=900)
def sigterm_prefork(rig: Rig) -> Outcome:
    return _stopped(rig, "prefork", signal.SIGTERM)


@drill("sigquit-threads", full_s=900)
def sigquit_threads(rig: Rig) -> Outcome:
    return _stopped(rig, "threads", signal.SIGQUIT)


@drill("sigquit-prefork", full_s=900)
def sigquit_prefork(rig: Rig) -> Outcome:
    return _stopped(rig, "prefork", signal.SIGQUIT)


def _stopped(rig: Rig, pool: str, number: signal.Signals) -> Outcome:
    """One worker after another is asked to go while it holds jobs. A warm stop ends what runs: nothing is run twice."""
    rounds = 3 if rig.quick else 12
    warm = number == signal.SIGTERM
    rig.enqueue(300)
    fleet = [rig.worker(pool, _SLOTS[pool]), rig.worker(pool, _SLOTS[pool])]
    longest_s = 0.0
    for _ in range(rounds):
        leaving = fleet.pop(0)
        rig.busy(leaving)
        held = rig.evidence.held_by(leaving.pid)
        rig.blow(lambda: None, held=held)
        longest_s = max(longest_s, leaving.leave(number))
        if warm:
            rig.claim(leaving.code == 0, f"a warm stop ends with exit code 0 (it was {leaving.code})")
        fleet.append(rig.worker(pool, _SLOTS[pool]))
    rig.claim(longest_s < 45, f"it goes within 45 s ({longest_s:.1f} s)")
    rig.finish()
    if warm:
        lines = [(job, fence) for job, fence, _ in rig.evidence.lines()]
        rig.claim(len(lines) == len({job for job, _ in lines}), "a warm stop runs nothing twice")
    note = f"{rounds} × {number.name} to a busy {pool} worker, gone after {longest_s:.1f} s at most"
    return rig.outcome(note, uncharged=rig.accepted if warm else ())
