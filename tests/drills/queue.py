"""kill -9 of the Celery worker's whole process group, again and again, while jobs run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests import servers

from .outcome import Broken, Outcome
from .verdict import Fate, judge

ROOT = Path(__file__).resolve().parents[2]
JOBS = 900
RUNS_PER_LIFE = 60  # at least, before the next kill
KILLS = 6
THREADS = 4
TIMEOUT_S = 110.0  # for the whole drill
WORKER = [
    "-A",
    "brain_project",
    "worker",
    "-P",
    "threads",
    "-c",
    str(THREADS),
    "--include",
    "tests.drills.jobs",
]


def run() -> list[Outcome]:
    with servers.scratch("drill") as home, servers.valkey() as url:
        _settings(home, url)
        return [_drill(home, time.monotonic() + TIMEOUT_S)]


def _settings(home: Path, redis_url: str) -> None:
    """This process and the workers it starts: a database and a Valkey of their own."""
    for name in [
        name for name in os.environ if name.startswith("BRAIN_") or name in ("DATABASE_URL", "BROKER_URL")
    ]:
        del os.environ[name]
    os.environ |= {
        "BRAIN_DATA_DIR": str(home / "data"),
        "BRAIN_LOG_LEVEL": "WARNING",
        "REDIS_URL": redis_url,
        "DJANGO_SETTINGS_MODULE": "brain_project.settings",
    }
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def _drill(home: Path, deadline: float) -> Outcome:
    effects, log = home / "effects", home / "worker.log"
    effects.touch()
    accepted = _enqueue(effects)
    blows: list[float] = []
    began = time.monotonic()
    for _ in range(KILLS):
        with _worker(log) as worker:
            _await_lines(effects, len(_lines(effects)) + RUNS_PER_LIFE, deadline, worker, log)
            time.sleep(random.uniform(0.1, 0.8))
            blows.append(time.monotonic())
            os.killpg(worker.pid, signal.SIGKILL)
    with _worker(log):
        _await_end(accepted, deadline)
    lines = _lines(effects)
    fates = _fates()
    verdict = judge(accepted, fates, [(job, fence) for job, fence, _ in lines])
    recovered_s = max(_recoveries(blows, [at for _, _, at in lines]))
    cut_off, took_s = sum(fate.crashes for fate in fates), time.monotonic() - began
    note = f"{KILLS} kills of the worker's group under {len(accepted)} jobs in {took_s:.0f} s: {cut_off} runs cut off, "
    note += (
        f"{len(lines) - len(accepted)} jobs ran to their end twice (killed between the work and its record)"
    )
    passed = verdict.lost == verdict.duplicated == verdict.failed == 0
    return Outcome(
        "queue", verdict.lost, verdict.duplicated, verdict.failed, round(recovered_s, 2), passed, note
    )


def _enqueue(effects: Path) -> list[str]:
    from orm_app import db
    from queue_app import enqueue

    from . import jobs

    with db.transaction():
        return [str(enqueue(jobs.record, {"effects": str(effects)}).pk) for _ in range(JOBS)]


@contextlib.contextmanager
def _worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real `celery worker` in a session of its own: its PID is that of its process group."""
    with open(log, "ab") as out:
        command = [sys.executable, "-m", "celery", *WORKER]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _lines(effects: Path) -> list[tuple[str, int, float]]:
    parts = (line.split() for line in effects.read_text().splitlines())
    return [(job, int(fence), float(at)) for job, fence, at in parts]


def _await_lines(
    effects: Path, count: int, deadline: float, worker: subprocess.Popen[bytes], log: Path
) -> None:
    while len(_lines(effects)) < min(count, JOBS):
        if worker.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise Broken("the worker does nothing; its last lines:\n" + "\n".join(said))
        time.sleep(0.02)


def _await_end(accepted: list[str], deadline: float) -> None:
    """Until nothing is left to run; at the deadline the verdict counts what is missing."""
    from queue_app.models import Job

    while time.monotonic() < deadline:
        if not Job.objects.filter(state__in=["PENDING", "PROCESSING", "FAILED"]).exists():
            return
        time.sleep(0.1)


def _fates() -> list[Fate]:
    from django.db.models import Count, Q

    from queue_app.models import Job

    completions = Count("events", filter=Q(events__state="COMPLETED"))
    rows = Job.objects.annotate(completions=completions).values_list(
        "id", "state", "completions", "crash_count"
    )
    return [Fate(str(id), state, count, crashes) for id, state, count, crashes in rows]


def _recoveries(blows: list[float], finished: list[float]) -> list[float]:
    """Seconds from each kill to the first work that was finished after it; infinite when none was."""
    return [min((at - blow for at in finished if at > blow), default=float("inf")) for blow in blows]
