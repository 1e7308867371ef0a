"""The autoscaler: a real `manage.py queue autoscale` follows a burst up and down, and one of its workers is killed meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tests.drills.processes import children_of

from .drill import BOTH, drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_LEAST, _MOST = 1, 5
_TAKES_S = (0.003, 0.009)  # of a job; a worker has one slot, so one alone would take a while
_GOALS = ["--latency", "2", "--hold", "5", "--every", "0.5"]
_END_S = 60.0


class Fleet:
    """The autoscaler's process; its workers are its children, and of its process group."""

    def __init__(self, rig: Rig, least: int, most: int, queues: Sequence[str] = ()) -> None:
        self._rig = rig
        chosen = ["-Q", ",".join(queues)] if queues else []
        bounds = ["--min", str(least), "--max", str(most)]
        command = ["manage.py", "queue", "-c", "1", *chosen, "autoscale", *bounds, *_GOALS]
        self.log = rig.home / f"fleet-{time.monotonic_ns()}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=rig.root,
                env=rig.environment
                | {"DJANGO_SETTINGS_MODULE": f"{__package__}.beat_settings", "BRAIN_LOG_LEVEL": "WARNING"},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def workers(self) -> list[int]:
        """Process ids of those that have registered."""
        return [pid for pid in children_of(self.process.pid) if self._rig.evidence.worker_of(pid)]

    def size(self) -> int:
        """Its workers, those too that start or end."""
        return len(children_of(self.process.pid))

    def leave(self) -> int | None:
        """SIGTERM; its exit code, once all of its workers have gone; None when they did not."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(_END_S)
        return None

    def kill(self) -> None:
        """With all of its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def fleet(rig: Rig, least: int, most: int, queues: Sequence[str] = ()) -> Iterator[Fleet]:
    running = Fleet(rig, least, most, queues)
    try:
        rig.until(lambda: len(running.workers()) >= least, "the fleet's first workers register")
        yield running
    finally:
        running.kill()


@drill("autoscale", databases=BOTH, full_s=1800)
def autoscale(rig: Rig) -> Outcome:
    """Up by itself, down by itself, and kill -9 of one of its workers in the middle of it."""
    burst = 2_000 if rig.quick else 20_000
    with fleet(rig, _LEAST, _MOST) as running:
        sizes = [len(running.workers())]

        def size() -> int:
            sizes.append(len(running.workers()))
            return sizes[-1]

        rig.enqueue(burst, _TAKES_S)
        rig.until(lambda: size() > _LEAST, "the fleet grows")
        victim = rig.until(lambda: _busy(rig, running, size), "one of its workers is busy")
        held = rig.evidence.held_by(victim)
        rig.blow(lambda: os.kill(victim, signal.SIGKILL), held=held)
        rig.wait_for(lambda: size() and not rig.evidence.open_jobs(), "every job is over", 600)
        rig.wait_for(lambda: running.size() == _LEAST, "the fleet is as small as before")
        rig.claim(max(sizes) > _LEAST + 1, f"it grew above {_LEAST + 1} workers ({max(sizes)} at most)")
        rig.claim(max(sizes) <= _MOST, f"never more than {_MOST} workers ({max(sizes)} were)")
        said = running.log.read_text(errors="replace")
        rig.claim(f"worker {victim} ended with -9" in said, "it notices that a worker has fallen")
        code = running.leave()
        rig.claim(code == 0, f"SIGTERM ends it and its workers in order (exit code {code})")
    return rig.outcome(f"a burst of {burst:,}: from {_LEAST} to {max(sizes)} workers and back, one killed")


def _busy(rig: Rig, running: Fleet, size: Callable[[], int]) -> int | None:
    """One that holds jobs."""
    size()
    return next((pid for pid in running.workers() if rig.evidence.held_by(pid)), None)
