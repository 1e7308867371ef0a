"""A side while it is up: servers of its own, workers, producer, and the marks its handlers leave."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import runtime
from benchmarks.processes import ROOT, Broken, Process, cpu_s, environment, tree_cpu_s
from tests import servers

from .marks import Marks
from .rates import ramp_for, slope
from .sides import FOLDERS, Side, Urls

PROCESSES, THREADS = 2, 4
STALL_S = 60.0  # without a job that is entered: the side does not work
ANSWER_S = 300.0  # of a producer
SETTLE_S = 0.5  # after the last job: acks, commits and records still cost CPU, and it is the side's
_WARM_UP = 100  # jobs of 1 ms at a time, until each process has run some


@dataclass(frozen=True, slots=True)
class Drain:
    """When each job was entered; microseconds of CPU per job, until its end was written."""

    entered_ns: Sequence[int] = field(repr=False)
    worker_us: float
    server_us: float

    @property
    def per_s(self) -> float:
        return slope(self.entered_ns)


class Producer:
    def __init__(self, argv: list[str], env: dict[str, str], log: Path) -> None:
        self._log = log
        with open(log, "wb") as errors:
            self._popen = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._answer()

    def ask(self, do: str, task: str, first: int, count: int, **more: Any) -> dict[str, Any]:
        command = {"do": do, "task": task, "first": first, "count": count, **more}
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(command).encode() + b"\n")
        self._popen.stdin.flush()
        return self._answer()

    def completed(self) -> int:
        return int(self.ask("completed", "", 0, 0)["completed"])

    def _answer(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        readable, _, _ = select.select([self._popen.stdout], [], [], ANSWER_S)
        line = self._popen.stdout.readline() if readable else b""
        if not line:
            said = "\n".join(self._log.read_text(errors="replace").strip().splitlines()[-5:])
            raise Broken(f"the producer did not answer; its last lines:\n{said}")
        return json.loads(line)  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._popen.kill()
        self._popen.communicate()


class Running:
    def __init__(self, side: Side, folder: Path, stack: ExitStack, processes: int, threads: int) -> None:
        self.side, self.workers = side, list[Process]()
        self._next, self._pids = 0, side.pids(processes, threads)
        interpreter = runtime(side.environment, FOLDERS) if side.environment else None
        self._servers, urls = _servers(side, folder, stack)
        self._marks = Marks(folder / "marks")
        variables = self._marks.env | side.variables(urls, folder)
        self._env = environment(PYTHONPATH=ROOT, BRAIN_DATA_DIR=folder / "data", **variables)
        for number, command in enumerate(side.prepare):
            self._prepare(side.argv(interpreter, command), folder / f"prepare-{number}.log")
        for number, command in enumerate(side.workers(processes, threads) if processes else []):
            name = f"{side.key}-{number}"
            worker = Process(
                name, side.argv(interpreter, command), self._env, folder / f"worker-{number}.log"
            )
            stack.callback(worker.kill)
            self.workers.append(worker)
        self._producer = Producer(side.argv(interpreter, side.producer), self._env, folder / "producer.log")
        stack.callback(self._producer.stop)

    def enqueue(self, do: str, count: int, task: str = "noop", **more: Any) -> dict[str, Any]:
        return self._producer.ask(do, task, self._numbers(count), count, batch=self.side.batch, **more)

    def warm_up(self) -> None:
        """Until every process has run jobs: which of them gets one is up to the broker."""
        deadline = time.monotonic() + STALL_S
        while self._marks.processes() < self._pids:
            if time.monotonic() > deadline:
                raise Broken(
                    f"{self.side.title}: only {self._marks.processes()} processes work; {self._said()}"
                )
            self._run_through(_WARM_UP, "work_1ms")
        self._run_through(_WARM_UP, "noop")

    def drain(self, task: str, count: int, ramp: int | None = None) -> Drain:
        """Of a queue that was full before its first job was let through.

        ramp: jobs before the measured ones. Held at the gate the first jobs look long, and a side that adapts to how
        long jobs are has to learn better first.
        """
        ramp = ramp_for(count) if ramp is None else ramp
        first, jobs = self._next, ramp + count
        self._marks.close_at(first)
        self.enqueue("bulk", jobs, task)
        worker_s, server_s = self.worker_cpu_s(), self.server_cpu_s()
        self._marks.open()
        entered = self._entered(first, jobs)
        worker_end_s, server_end_s = self._settled()
        return Drain(
            entered[ramp:], (worker_end_s - worker_s) / jobs * 1e6, (server_end_s - server_s) / jobs * 1e6
        )

    def latencies_ms(self, count: int, rate: float) -> list[float]:
        """From the enqueue call to the handler's first line, at `rate` jobs per second."""
        first = self._next
        began_ns = self.enqueue("paced", count, rate=rate)["began_ns"]
        entered_ns = self._entered(first, count)
        return [(entered - began) / 1e6 for began, entered in zip(began_ns, entered_ns, strict=True)]

    def replay(self, count: int, rate: float) -> tuple[list[float], list[float]]:
        """Of so many dead letters: when each was let go again and when it was done, in seconds. Ours alone."""
        first = self._numbers(count)
        said = self._producer.ask("replay", "noop", first, count, rate=rate)
        return said["let_go_s"], said["completed_s"]

    def worker_cpu_s(self) -> float:
        return cpu_s(self.workers)

    def server_cpu_s(self) -> float:
        return sum(tree_cpu_s(pid) for pid in self._servers)

    def memory_bytes(self) -> int:
        return sum(worker.anonymous_bytes() for worker in self.workers)

    def _settled(self) -> tuple[float, float]:
        """CPU seconds of workers and servers, once every row says COMPLETED where the side keeps rows."""
        deadline = time.monotonic() + STALL_S
        while True:
            time.sleep(SETTLE_S)
            spent_s = self.worker_cpu_s(), self.server_cpu_s()  # before the count below costs some
            missing = self._next - self._producer.completed() if self.side.keeps_rows else 0
            if missing <= 0:
                return spent_s
            if time.monotonic() > deadline:
                raise Broken(f"{self.side.title}: {missing} jobs ran and are not COMPLETED; {self._said()}")

    def _run_through(self, count: int, task: str) -> None:
        first = self._next
        self.enqueue("bulk", count, task)
        self._entered(first, count)

    def _entered(self, first: int, count: int) -> list[int]:
        """Wait until all have been entered. The jobs are looked at once each, so that waiting costs next to nothing."""
        done, changed = 0, time.monotonic()
        while done < count:
            rest = self._marks.entered_ns(first + done, min(count - done, 5_000))
            step = rest.index(0) if 0 in rest else len(rest)
            done += step
            if step:
                changed = time.monotonic()
            elif time.monotonic() - changed > STALL_S:
                raise Broken(f"{self.side.title}: {count - done} of {count} jobs did not run; {self._said()}")
            if 0 in rest:
                time.sleep(0.05)
        return self._marks.entered_ns(first, count)

    def _numbers(self, count: int) -> int:
        first = self._next
        self._next += count
        return first

    def _prepare(self, argv: list[str], log: Path) -> None:
        with open(log, "wb") as out:
            done = subprocess.run(argv, cwd=ROOT, env=self._env, stdout=out, stderr=out, timeout=ANSWER_S)
        if done.returncode:
            raise Broken(
                f"{self.side.title} could not be prepared:\n{log.read_text(errors='replace')[-1500:]}"
            )

    def _said(self) -> str:
        return "last lines of a worker:\n" + (self.workers[0].last_lines() if self.workers else "(none)")


class Stage:
    """The sides that are up now: one that stays from pair to pair is started once."""

    def __init__(self, home: Path) -> None:
        self._home, self._counter = home, itertools.count()
        self._up: dict[tuple[str, int, int], tuple[Running, ExitStack]] = {}

    def only(self, *sides: Side, processes: int = PROCESSES, threads: int = THREADS) -> list[Running]:
        """These sides, up and warm, and no others. processes = 0: the servers and the producer alone."""
        wanted = {(side.key, processes, threads): side for side in sides}
        for key in [key for key in self._up if key not in wanted]:
            self._up.pop(key)[1].close()
        for key, side in wanted.items():
            if key not in self._up:
                self._up[key] = self._started(side, processes, threads)
        return [self._up[key][0] for key in wanted]

    def close(self) -> None:
        self.only()

    def _started(self, side: Side, processes: int, threads: int) -> tuple[Running, ExitStack]:
        folder = self._home / f"{next(self._counter)}-{side.key}"
        folder.mkdir()
        with ExitStack() as stack:
            running = Running(side, folder, stack, processes, threads)
            if processes:
                running.warm_up()
            return running, stack.pop_all()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    with servers.scratch("bench") as home:
        up = Stage(home)
        try:
            yield up
        finally:
            up.close()


def _servers(side: Side, folder: Path, stack: ExitStack) -> tuple[list[int], Urls]:
    """The side's own servers: their process ids and URLs. Alike on all sides, and nobody else's."""
    starts: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "redis": lambda: servers.valkey(port=servers.free_port()),
        "postgresql": servers.postgresql,
        "amqp": servers.rabbitmq,
    }
    before = _direct_children()
    urls = {name: stack.enter_context(starts[name]()) for name in side.servers}
    return sorted(_direct_children() - before), Urls(**urls)


def _direct_children() -> set[int]:
    return {
        int(pid)
        for tasks in Path(f"/proc/{os.getpid()}/task").glob("*/children")
        for pid in tasks.read_text().split()
    }
