"""From the gateway's port to the mail: our platform, and the same thing built the usual way.

GET  client → gateway → service → cached totals
POST client → gateway → service → row and job → worker → SMTP
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import servers

from .figures import Figure, cost, ratio
from .load import Burst, burst
from .processes import ROOT, Broken, Process, cpu_s, environment, running

NO_WORSE = 1.0  # the goal of every ratio: what the platform adds costs no more than the usual way
INSTANCES = 3
THREADS = 4  # of the worker
CONNECTIONS = 8
BODY = json.dumps({"title": "Benchmark", "assignee_email": "somebody@example.com"}).encode()
WORKER = [
    "worker",
    "-P",
    "threads",
    "-c",
    str(THREADS),
    "--without-gossip",
    "--without-mingle",
    "-l",
    "WARNING",
]
UNEQUAL = (
    "The platform also balances over health-checked targets, keeps breakers, request ids, metrics and a limit of three "
    "windows in one script; the usual proxy checks one key and one DRF throttle, and takes the services in turn.",
    "The platform's job is a row in the task's transaction and keeps its history; the usual job is a message, sent after "
    "the row, that a killed worker loses.",
    "SQLite: the platform's is tuned (WAL, IMMEDIATE); the usual one has the defaults but for a timeout of 20 s.",
    "The cache: the platform's totals are JSON, rebuilt under a lock; the usual ones are pickled by cache.get_or_set.",
    "The usual proxy is Django under uvicorn in one process, as is our edge (gunicorn is not among the requirements); it "
    "keeps its upstream connections, which a bare requests.get would not. Its service uses DRF, ours plain views.",
    "Client, both sides, Valkey and mail sinks share one machine: requests per second depend on its cores and on what "
    "else runs there, CPU per request much less. Valkey's and the sinks' CPU is not counted.",
)


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int
    requests: int  # per round and side
    jobs: int


FULL, QUICK = Size(5, 1500, 300), Size(3, 300, 60)


@dataclass(slots=True)
class Side:
    url: str
    key: str
    gateway: Process
    service: Process
    worker: Process
    mails: Path
    gets_per_s: list[float] = field(default_factory=list)
    gateway_us: list[float] = field(default_factory=list)  # CPU per GET
    get_us: list[float] = field(default_factory=list)
    jobs_per_s: list[float] = field(default_factory=list)
    job_us: list[float] = field(default_factory=list)

    def delivered(self) -> int:
        return sum(1 for _ in self.mails.glob("*.eml"))

    def get(self, count: int) -> None:
        before = (self.gateway.cpu_s(), cpu_s([self.gateway, self.service]))
        done = self._burst("GET", "/api/v1/stats", count, 200)
        after = (self.gateway.cpu_s(), cpu_s([self.gateway, self.service]))
        self.gets_per_s.append(done.per_second)
        self.gateway_us.append((after[0] - before[0]) / count * 1e6)
        self.get_us.append((after[1] - before[1]) / count * 1e6)

    def post(self, count: int) -> None:
        """Tasks posted until the last of their mails is delivered."""
        everyone = [self.gateway, self.service, self.worker]
        before, mails, began = cpu_s(everyone), self.delivered(), time.perf_counter()
        self._burst("POST", "/api/v1/tasks", count, 201)
        self.worker.wait_for(lambda: self.delivered() >= mails + count, timeout_s=60)
        self.jobs_per_s.append(count / (time.perf_counter() - began))
        self.job_us.append((cpu_s(everyone) - before) / count * 1e6)

    def warm_up(self) -> None:
        self._burst("GET", "/api/v1/stats", 30, 200)
        self._burst("POST", "/api/v1/tasks", 10, 201)
        self.worker.wait_for(lambda: self.delivered() >= 10, timeout_s=30)

    def _burst(self, method: str, path: str, count: int, expect: int) -> Burst:
        body = BODY if method == "POST" else b""
        url = self.url + path
        return burst(
            method, url, count=count, connections=CONNECTIONS, key=self.key, body=body, expect=expect
        )


def run(options: argparse.Namespace) -> list[Figure]:
    size = QUICK if options.quick else FULL
    with servers.scratch("bench") as home, _brain(home) as ours, _usual(home) as theirs:
        for side in (ours, theirs):
            side.warm_up()
        for number in range(size.rounds):
            # The second of a pair meets caches and clocks that the first has warmed: take turns.
            for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                side.get(size.requests)
                side.post(size.jobs)
    return [
        ratio("GET: requests", ours.gets_per_s, theirs.gets_per_s, "/s", NO_WORSE),
        cost("GET: CPU of the gateway", ours.gateway_us, theirs.gateway_us, "µs", NO_WORSE),
        cost("GET: CPU of gateway, service", ours.get_us, theirs.get_us, "µs", NO_WORSE),
        ratio("POST to mail: jobs", ours.jobs_per_s, theirs.jobs_per_s, "/s", NO_WORSE),
        cost("POST to mail: CPU of gateway, service, worker", ours.job_us, theirs.job_us, "µs", NO_WORSE),
    ]


@contextlib.contextmanager
def _brain(home: Path) -> Iterator[Side]:
    folder = _folder(home, "brain")
    with contextlib.ExitStack() as stack:
        redis_url = stack.enter_context(servers.valkey())
        mails, smtp_port = stack.enter_context(_sink(folder))
        env = environment(
            BRAIN_DATA_DIR=folder / "data",
            REDIS_URL=redis_url,
            BRAIN_SMTP_PORT=smtp_port,
            BRAIN_LOG_LEVEL="WARNING",
        )
        ports = ",".join(["0"] * INSTANCES)
        command = ["examples.tasks_service", "--ports", ports]
        service, targets = stack.enter_context(_instances("service", command, env, folder))
        key = _configured(env, "brain", *targets)
        port = servers.free_port()
        command = ["manage", "gateway", "--host", "127.0.0.1", "--port", str(port)]
        gateway = stack.enter_context(running("gateway", command, env=env, folder=folder))
        command = ["celery", "-A", "brain_project", *WORKER]
        worker = stack.enter_context(running("worker", command, env=env, folder=folder))
        url = f"http://127.0.0.1:{port}"
        gateway.wait_for(lambda: _status(f"{url}/gateway/health") == 200)
        yield Side(url, key, gateway, service, worker, mails)


@contextlib.contextmanager
def _usual(home: Path) -> Iterator[Side]:
    folder, key = _folder(home, "usual"), "usual-secret"
    with contextlib.ExitStack() as stack:
        redis_port = servers.free_port()
        redis_url = stack.enter_context(servers.valkey(port=redis_port))
        mails, smtp_port = stack.enter_context(_sink(folder))
        env = environment(
            USUAL_DATABASE=folder / "db.sqlite3",
            USUAL_REDIS_URL=redis_url,
            USUAL_SMTP_PORT=smtp_port,
            USUAL_API_KEY=key,
        )
        _configured(env, "usual")
        command = ["benchmarks.usual", "--ports", ",".join(["0"] * INSTANCES)]
        service, targets = stack.enter_context(_instances("service", command, env, folder))
        env |= {"USUAL_TARGETS": ",".join(targets), "USUAL_ROLE": "proxy"}
        command = ["benchmarks.usual", "--ports", "0"]
        gateway, (url,) = stack.enter_context(_instances("gateway", command, env, folder))
        command = ["celery", "-A", "benchmarks.usual.celery", *WORKER]
        worker = stack.enter_context(running("worker", command, env=env, folder=folder))
        yield Side(url, key, gateway, service, worker, mails)


@contextlib.contextmanager
def _instances(
    name: str, command: list[str], env: dict[str, str], folder: Path
) -> Iterator[tuple[Process, list[str]]]:
    """The processes and their addresses, as they print them."""
    wanted = command[-1].count(",") + 1
    with running(name, command, env=env, folder=folder) as process:

        def addresses() -> list[str]:
            return re.findall(r"listens on (http://\S+)", process.said())

        process.wait_for(lambda: len(addresses()) == wanted)
        yield process, addresses()


@contextlib.contextmanager
def _sink(folder: Path) -> Iterator[tuple[Path, int]]:
    mails = folder / "mails"
    command = ["examples.mail_sink", "--port", "0", "--dir", str(mails)]
    with running("mail", command, env=environment(), folder=folder) as process:
        process.wait_for(lambda: "listens on" in process.said())
        found = re.search(r"listens on \S+:(\d+)", process.said())
        yield mails, int(found[1]) if found else 0


def _configured(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.configure", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Broken(f"{arguments[0]} could not be configured:\n{done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def _folder(home: Path, name: str) -> Path:
    folder = home / name
    folder.mkdir()
    return folder


def _status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=2) as answer:
        return int(answer.status)
