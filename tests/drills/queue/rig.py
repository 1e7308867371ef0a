"""Where a drill takes place: the one place that starts its workers, keeps the ids it was promised and judges the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.drills.outcome import Broken, Outcome
from tests.drills.processes import children_of
from tests.drills.verdict import judge, recovery_s

if TYPE_CHECKING:
    from .evidence import Evidence

ROOT = Path(__file__).resolve().parents[3]
LEASE_S = 2.0  # of the workers; short, so that minutes become seconds
WORK_S = (0.01, 0.06)  # a job takes so many seconds, at least and at most
_LEAVE_S = 45.0  # for a warm stop; what docs/production.md tells a supervisor to wait
_BOOT_S = 90.0
CELERY = ["-m", "celery", "-A", "brain_project", "worker", "--without-mingle", "--without-gossip"]


class Worker:
    """A real `celery worker` in a session of its own: its PID is that of its process group."""

    def __init__(
        self, pool: str, slots: int, include: tuple[str, ...], env: dict[str, str], log: Path
    ) -> None:
        self.log_file = log
        modules = ",".join(f"{__package__}.{name}" for name in include)
        command = [sys.executable, *CELERY, "-P", pool, "-c", str(slots), "--include", modules]
        command += ["-n", f"{log.stem}@%h"]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"BRAIN_LOG_LEVEL": "WARNING"} | env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self.process.pid

    @property
    def code(self) -> int | None:
        """The exit code of a worker that has left by itself."""
        return self.process.poll()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """To the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()

    def leave(self, number: signal.Signals = signal.SIGTERM) -> float:
        """The signal to the main process, as a supervisor sends it. Seconds until it had gone; kill -9 after 45 s."""
        began = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes every thread's stack into the log
            time.sleep(1)
        took_s = time.monotonic() - began
        self.kill()
        return took_s

    def children(self) -> list[int]:
        """Of a prefork pool."""
        return children_of(self.pid)


class Rig:
    """What a family's drills work with. accepted: every id that an enqueue has returned."""

    def __init__(
        self, name: str, *, quick: bool, home: Path, database_url: str, broker: Any, limit_s: float
    ) -> None:
        self.name, self.quick, self.home = name, quick, home
        self.database_url, self.broker = database_url, broker
        self.deadline = time.monotonic() + limit_s
        self.root, self.environment = ROOT, dict(os.environ)
        self.accepted: list[str] = []
        self.claims: list[str] = []  # what else was to hold and did not
        self.evidence: Evidence
        self._started: list[Worker] = []
        self._blows: list[tuple[float, set[str] | None]] = []
        self._recoveries: list[float] = []

    # --- workers ---
    def worker(
        self,
        pool: str = "threads",
        slots: int = 4,
        *,
        include: tuple[str, ...] = ("jobs",),
        env: dict[str, str] | None = None,
        may_end: bool = False,
    ) -> Worker:
        """A worker that has registered; or has ended since, where it may."""
        log = self.home / f"worker-{len(self._started)}.log"
        worker = Worker(pool, slots, include, env or {}, log)
        self._started.append(worker)
        self.until(
            lambda: self.evidence.worker_of(worker.pid) or not worker.runs, "the worker registers", _BOOT_S
        )
        if not worker.runs and not may_end:
            raise Broken(f"the worker ended at its start:\n{_tail(worker)}")
        return worker

    def close(self) -> None:
        for worker in self._started:
            worker.kill()

    # --- jobs ---
    def enqueue(self, count: int, takes_s: tuple[float, float] = WORK_S, **options: Any) -> list[str]:
        return self.accept(self.evidence.mixed(count, takes_s, **options))

    def enqueue_broker(self, count: int, takes_s: tuple[float, float] = WORK_S) -> list[str]:
        return self.accept(self.evidence.broker(count, takes_s))

    def enqueue_one(self, target: Any, **payload: Any) -> str:
        (id,) = self.accept(self.evidence.enqueue(target, payload, 1))
        return id

    def try_enqueue(self, count: int) -> bool:
        """Whether the database took them; what it did not take was not promised."""
        try:
            self.enqueue(count)
        except self.evidence.errors:
            self.evidence.reconnect()
            return False
        return True

    def accept(self, ids: list[str]) -> list[str]:
        self.accepted += ids
        return ids

    def top_up(self, least: int = 200, by: int = 300) -> None:
        """Keep the workers busy."""
        if self.evidence.open_jobs() < least:
            self.enqueue(by)

    def top_up_broker(self) -> None:
        """The same with plain tasks, of which the broker alone knows how many wait."""
        if len(self.accepted) - len({job for job, _ in self.evidence.finished()}) < 100:
            self.enqueue_broker(100)

    # --- time ---
    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 240.0) -> Any:
        deadline = min(self.deadline, time.monotonic() + timeout_s)
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise Broken(f"not in time: {what}; jobs: {self.evidence.states()}\n{self._last_words()}")
            time.sleep(0.05)
        return found

    def busy(self, worker: Worker) -> None:
        """Until the ledger says that it holds jobs."""

        def holds() -> bool:
            self.top_up()
            return bool(self.evidence.held_by(worker.pid))

        self.until(holds, "the worker is busy")

    def progress(self, by: int, top_up: Callable[[], object] = lambda: None) -> None:
        """Until so much more work is done, with `top_up` called again and again."""
        goal = self.evidence.done() + by

        def reached() -> bool:
            top_up()
            return self.evidence.done() >= goal

        self.until(reached, f"{by} more runs")

    def in_time(self) -> None:
        """Raises Broken after the drill's deadline."""
        if time.monotonic() > self.deadline:
            raise Broken(f"the drill takes too long; jobs: {self.evidence.states()}\n{self._last_words()}")

    def settle(self, seconds: float) -> None:
        """Until no work has been done for so long."""
        last, done = time.monotonic(), self.evidence.done()
        while time.monotonic() - last < seconds:
            self.in_time()
            time.sleep(0.2)
            if (now := self.evidence.done()) != done:
                last, done = time.monotonic(), now

    def finish(self, timeout_s: float = 240.0) -> None:
        """Until nothing is left to run; what is left at the deadline the verdict counts as lost."""
        self.wait_for(lambda: not self.evidence.open_jobs(), "every job is over", timeout_s)

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = 240.0) -> None:
        """Not in time is one more thing that did not hold, and the verdict says what it cost."""
        try:
            self.until(condition, what, timeout_s)
        except Broken as error:
            self.claims.append(str(error))

    # --- the end ---
    def blow(
        self, strike: Callable[[], object], victim: Worker | None = None, held: set[str] | None = None
    ) -> None:
        """Strike, and remember when, and what the victim held: recovery lasts until that is done."""
        at = time.monotonic()
        strike()
        self._blows.append((at, self.evidence.held_by(victim.pid) if victim else held))

    def mended(self, at: float | None = None) -> None:
        """The fault has ended, now or at `at`: from here on the work is expected to go on."""
        self._blows.append((at or time.monotonic(), None))

    def recovered_in(self, seconds: float) -> None:
        """Where the drill itself sees when it was over."""
        self._recoveries.append(seconds)

    def claim(self, holds: bool, what: str) -> None:
        if not holds:
            self.claims.append(what)

    def outcome(
        self,
        note: str,
        *,
        poison: Collection[str] = (),
        uncharged: Collection[str] = (),
        may_lose: bool = False,
        within_s: float = 60.0,
    ) -> Outcome:
        """may_lose: the number of the lost is reported and does not fail the drill. within_s: of the recovery."""
        self.close()  # what still runs would change the evidence while it is read
        evidence = self.evidence
        fates, lines = evidence.fates(), evidence.lines()
        effects = [job for job, _ in evidence.effects()]
        verdict = judge(
            self.accepted,
            fates,
            effects,
            [(job, fence) for job, fence, _ in lines],
            poison=poison,
            uncharged=uncharged,
        )
        finished = evidence.finished()
        seen = [recovery_s(at, finished, held) for at, held in self._blows]
        recovered_s = max([*seen, *self._recoveries], default=0.0)
        self.claim(recovered_s <= within_s, f"recovered within {within_s:.0f} s")
        crashes = sum(fate.crashes for fate in fates if fate.id not in poison)
        told = [note, f"{len(self.accepted)} jobs, {crashes} charged crashes, {verdict.reruns} reruns"]
        told += [
            f"PROBLEM: {problem}" for problem in (*verdict.problems, *(f"not so: {c}" for c in self.claims))
        ]
        wrong = verdict.duplicated or verdict.failed or verdict.problems or self.claims
        return Outcome(
            self.name,
            verdict.lost,
            verdict.duplicated,
            verdict.failed,
            None if recovered_s == float("inf") else round(recovered_s, 2),
            passed=not wrong and (may_lose or not verdict.lost),
            note="; ".join(told),
        )

    def _last_words(self) -> str:
        return "\n".join(_tail(worker) for worker in self._started[-2:])

    def log(self) -> str:
        return "".join(worker.log for worker in self._started)


def _tail(worker: Worker) -> str:
    return f"{worker.log_file.stem}: " + "\n  ".join(
        line[:200] for line in worker.log.strip().splitlines()[-6:]
    )


@contextlib.contextmanager
def rig(
    name: str, *, quick: bool, home: Path, database_url: str, broker: Any, limit_s: float
) -> Iterator[Rig]:
    """Django set up on the drill's own database and broker; its workers are gone when the block ends."""
    _environment(home, database_url, broker)
    import django

    django.setup()
    from .evidence import Evidence

    here = Rig(name, quick=quick, home=home, database_url=database_url, broker=broker, limit_s=limit_s)
    here.evidence = Evidence(home / "lines")
    here.evidence.prepare()
    try:
        yield here
    finally:
        here.close()


def _environment(home: Path, database_url: str, broker: Any) -> None:
    """Of this process and of the workers it starts."""
    ours = ("DATABASE_URL", "REDIS_URL", "BROKER_URL")
    for name in [name for name in os.environ if name.startswith("BRAIN_") or name in ours]:
        del os.environ[name]
    os.environ |= {
        "BRAIN_DATA_DIR": str(home / "data"),
        "BRAIN_LOG_LEVEL": "ERROR",
        "BRAIN_LOG_JSON": "1",
        "PYTHONFAULTHANDLER": "1",
        "DATABASE_URL": database_url,
        "REDIS_URL": broker.url,
        "DJANGO_SETTINGS_MODULE": f"{__package__}.settings",
        **getattr(broker, "env", {}),
    }
