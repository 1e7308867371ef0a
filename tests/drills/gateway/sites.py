"""The processes of a drill: edges, as `manage.py gateway` starts them, and targets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.drills.processes import children_of, clients_of
from tests.servers import answers, free_port

ROOT = Path(__file__).resolve().parents[3]
_BOOT_S = 60.0


class NotReady(Exception):
    """A process did not get where it was to get in time. Its last words are in the message."""


class Process:
    """In a session of its own; its output is in a file."""

    def __init__(self, argv: Sequence[str], log: Path, port: int, env: dict[str, str] | None = None) -> None:
        self.log, self.port = log, port
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, *argv], cwd=ROOT, env=os.environ | (env or {}), stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, ready: Any, timeout_s: float = _BOOT_S) -> None:
        """Raises NotReady."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.runs or time.monotonic() > deadline:
                raise NotReady(f"{self.log.stem} (exit code {self.process.poll()}):\n{self.said[-1500:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """With everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, timeout_s: float = 20.0) -> tuple[int | None, float]:
        """SIGTERM to it alone, as a supervisor sends it. Its exit code (None: it had to be killed), and after how long."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        code, took_s = self.process.poll(), time.monotonic() - began
        self.kill()
        return code, took_s


class Edge(Process):
    """`manage.py gateway`. ahead_s: of its clock, for an edge of one process."""

    def __init__(self, log: Path, *, workers: int = 2, ahead_s: float | None = None) -> None:
        self.count = workers
        port = free_port()
        start = ["manage.py"] if ahead_s is None else ["-m", "benchmarks.gateway.brain.skewed", str(ahead_s)]
        argv = [*start, "gateway", "--port", str(port), "--workers", str(workers)]
        super().__init__(argv, log, port, {"BRAIN_LOG_LEVEL": "INFO", "PYTHONPATH": str(ROOT)})

    def ready(self) -> Edge:
        """Once all of its processes serve."""
        self.wait_for(lambda: self.said.count('"edge_ready"') >= self.count)
        return self

    @property
    def pids(self) -> list[int]:
        """Of the processes that serve."""
        return children_of(self.pid) if self.count > 1 else [self.pid]

    def clients(self, pid: int) -> frozenset[int]:
        """The ports of the clients whose connections this one of its processes has."""
        return clients_of(pid, self.port)

    def health(self) -> dict[str, Any]:
        """Of whichever process answers. Raises OSError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/gateway/health", timeout=5) as answer:
            return dict(json.load(answer))

    def figures(self) -> str:
        """Of all of its processes, in the text of Prometheus. Raises OSError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/gateway/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def figure(self, name: str) -> float:
        """The sum over all labels."""
        lines = (line.rpartition(" ") for line in self.figures().splitlines() if line.startswith(name))
        return sum(float(value) for series, _, value in lines if series.partition("{")[0] == name)


class Target(Process):
    """A server behind the gateway that writes down the ids it has read; it keeps its port and file when it is started again."""

    def __init__(self, log: Path, file: Path, port: int) -> None:
        super().__init__(["-m", f"{__package__}.upstream", str(port), str(file)], log, port)
        self.file = file
        self.name = f"127.0.0.1:{port}"
        self.url = f"http://{self.name}"

    def again(self) -> Target:
        fresh = Target(self.log, self.file, self.port)
        fresh.wait_for(answers(self.port))
        return fresh
