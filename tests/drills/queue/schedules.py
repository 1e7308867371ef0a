"""Schedules: a thousand due in one second with three schedulers, of which one is killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drill import BOTH, drill

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig

_LEAD_S = 6.0  # to write them all before the second comes


@drill("schedules-due-at-once", databases=BOTH)
def due_at_once(rig: Rig) -> Outcome:
    """A worker and two beats; one of the beats is killed while it fires, then the worker that leads."""
    count = 200 if rig.quick else 1000
    _, took_s = due_with(rig, count)
    rig.finish()
    return rig.outcome(
        f"{count} due in one second, all fired {took_s:.1f} s later; a beat and a worker killed"
    )


def due_with(
    rig: Rig,
    count: int,
    *,
    worker_env: Mapping[str, str] | None = None,
    beat_envs: Sequence[Mapping[str, str]] = ({}, {}),
) -> tuple[datetime, float]:
    """So many due in one second, with the schedulers' environments. The moment, and how many seconds later all had fired."""
    from queue_app.models import Firing, Job

    worker = rig.worker(env=dict(worker_env or {}))
    with contextlib.ExitStack() as stack:
        two = [stack.enter_context(beats(rig, 1, f"{n}-", env))[0] for n, env in enumerate(beat_envs)]
        due = make(rig, count)
        rig.until(lambda: Firing.objects.count() > count // 20, "they begin to fire")
        os.killpg(two[0].pid, signal.SIGKILL)
        rig.blow(worker.kill)
        rig.worker(env=dict(worker_env or {}))
        rig.wait_for(lambda: Firing.objects.count() >= count, "every schedule has fired")
        took_s = time.time() - due.timestamp()
    rig.claim(
        set(Firing.objects.values_list("outcome", "due_at")) == {("fired", due)}, "all fired for their moment"
    )
    rig.claim(Job.objects.count() == count, f"one job for each of {count} ({Job.objects.count()} are there)")
    rig.accept([str(job) for job in Firing.objects.values_list("job", flat=True)])
    rig.claim(len(set(rig.accepted)) == count, "each with a firing of its own")
    return due, took_s


def make(
    rig: Rig,
    count: int,
    *,
    every_s: int = 3600,
    due: datetime | None = None,
    name: str = "drill",
    **terms: Any,
) -> datetime:
    """All due at one moment, which lies ahead when they are written."""
    from queue_app import clock
    from queue_app.models import Schedule

    due = due or clock.now().replace(microsecond=0) + timedelta(seconds=_LEAD_S)
    payload = {"file": str(rig.evidence.file), "takes_s": 0.0}
    terms |= {
        "task": "drills.line",
        "payload": payload,
        "interval_s": every_s,
        "starts_at": due,
        "next_at": due,
    }
    Schedule.objects.bulk_create([Schedule(name=f"{name} {n}", **terms) for n in range(count)])
    return due


@contextlib.contextmanager
def beats(
    rig: Rig, count: int, mark: str = "", env: Mapping[str, str] | None = None
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """mark: part of the names of their files."""
    processes = [_beat(rig, rig.home / f"beat-{mark}{n}", env or {}) for n in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _beat(rig: Rig, files: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    app = ["-m", "celery", "-A", "brain_project", "beat"]
    own = ["--schedule", f"{files}.db", "--pidfile", f"{files}.pid", "--loglevel", "INFO"]
    said = files.with_suffix(".log")
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *app, *own],
            cwd=rig.root,
            env={**rig.environment, "DJANGO_SETTINGS_MODULE": f"{__package__}.beat_settings", **env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    rig.until(files.with_suffix(".pid").exists, "beat starts")
    return process
