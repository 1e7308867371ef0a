"""The sides of the comparison: which servers, workers and producer each one is, and what it is not equal in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.environments import HOME

Command = list[str]
FOLDERS = Path(__file__).parent / "peers"  # one a peer: requirements, handlers, producer


@dataclass(frozen=True, slots=True)
class Urls:
    redis: str = ""
    postgresql: str = ""
    amqp: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """workers(processes, threads): one command for each process that the rig starts; a command runs under the
    side's interpreter. environment: the peer's folder, None for ours. pids(processes, threads): how many processes run jobs.
    batch: jobs in one bulk call.
    """

    key: str
    title: str
    environment: str | None
    servers: tuple[str, ...]
    workers: Callable[[int, int], list[Command]]
    producer: Command
    prepare: tuple[Command, ...] = ()
    variables: Callable[[Urls, Path], dict[str, object]] = field(
        default=lambda urls, folder: _urls(urls), repr=False
    )
    pids: Callable[[int, int], int] = field(default=lambda processes, threads: processes, repr=False)
    batch: int = 500
    keeps_rows: bool = False  # a row for each job that says COMPLETED in the end

    def argv(self, interpreter: str | None, command: Command) -> list[str]:
        return [interpreter or sys.executable, *command]


def _urls(urls: Urls) -> dict[str, object]:
    return {
        "BENCH_REDIS_URL": urls.redis,
        "BENCH_POSTGRESQL_URL": urls.postgresql,
        "BENCH_AMQP_URL": urls.amqp,
    }


# --- ours ----------------------------------------------------------------------------------------------------------------

_QUIET = ["--without-gossip", "--without-mingle", "-l", "WARNING"]


def _celery(app: str, pool: str) -> Callable[[int, int], list[Command]]:
    """Threads: a worker for each process. Prefork: one worker with `processes` children."""

    def workers(processes: int, threads: int) -> list[Command]:
        def command(name: str, slots: int) -> Command:
            return [
                "-m",
                "celery",
                "-A",
                app,
                "worker",
                "-n",
                f"{name}@%h",
                "-P",
                pool,
                "-c",
                str(slots),
            ] + _QUIET

        if pool == "prefork":
            return [command("bench", processes)]
        return [command(f"bench{number}", threads) for number in range(processes)]

    return workers


def _ours(
    key: str,
    title: str,
    *,
    database: str,
    delivery: str,
    broker: str = "redis",
    pool: str = "threads",
    recorded: bool = True,
    counted: bool = True,
) -> Side:
    def variables(urls: Urls, folder: Path) -> dict[str, object]:
        chosen = {"stock": f"stock-{urls.redis}", "amqp": urls.amqp}.get(broker, "")
        return {
            "DJANGO_SETTINGS_MODULE": "benchmarks.queue.brain.settings",
            "BRAIN_DEMO": "0",
            "BRAIN_LOG_LEVEL": "WARNING",
            "DATABASE_URL": urls.postgresql or f"sqlite:///{folder / 'db.sqlite3'}",
            "REDIS_URL": urls.redis,
            "BROKER_URL": chosen,
            "BENCH_RECORDED": int(recorded),
            "BENCH_COUNTED": int(counted),
        }

    servers = ("redis", *(["postgresql"] if database == "postgresql" else []))
    return Side(
        key,
        title,
        None,
        (*servers, "amqp") if broker == "amqp" else servers,
        _celery("brain_project", pool),
        ["-m", "benchmarks.queue.brain.producer", delivery],
        prepare=(["-m", "django", "migrate", "--verbosity", "0"],),
        variables=variables,
        keeps_rows=recorded,
    )


OURS = (
    _ours("ledger-pg", "ledger, PostgreSQL", database="postgresql", delivery="ledger"),
    _ours("ledger-sqlite", "ledger, SQLite", database="sqlite", delivery="ledger"),
    _ours(
        "ledger-stock", "ledger, stock transport", database="postgresql", delivery="ledger", broker="stock"
    ),
    _ours("broker", "broker, recorded", database="postgresql", delivery="broker"),
    _ours(
        "broker-prefork",
        "broker, recorded, prefork",
        database="postgresql",
        delivery="broker",
        pool="prefork",
    ),
    _ours(
        "broker-bare",
        "broker, unrecorded",
        database="postgresql",
        delivery="broker",
        recorded=False,
    ),
    _ours(
        "broker-amqp",
        "broker, RabbitMQ, recorded",
        database="postgresql",
        delivery="broker",
        broker="amqp",
    ),
    _ours(
        "ledger-uncounted",
        "ledger, PostgreSQL, no statistics",
        database="postgresql",
        delivery="ledger",
        counted=False,
    ),
    _ours("recorder", "recorder", database="postgresql", delivery="recorder"),
)

# --- peers -----------------------------------------------------------------------------------------------------------------

_PEERS = "benchmarks.queue.peers"


def _stock(key: str, title: str, server: str, pool: str) -> Side:
    return Side(
        key,
        title,
        "celery",
        (server,),
        _celery(f"{_PEERS}.celery.app", pool),
        ["-m", f"{_PEERS}.celery.producer"],
    )


def _peer(name: str, title: str, workers: Callable[[int, int], list[Command]], **more: object) -> Side:
    producer = ["-m", f"{_PEERS}.{name}.producer"]
    return Side(name, title, name, more.pop("servers", ("redis",)), workers, producer, **more)  # type: ignore[arg-type]


def _times(processes: int, command: Command) -> list[Command]:
    return [command for _ in range(processes)]


def _dramatiq(processes: int, threads: int) -> list[Command]:
    sizes = ["--processes", str(processes), "--threads", str(threads)]
    return [["-m", "dramatiq", f"{_PEERS}.dramatiq.app", *sizes]]


def _huey(processes: int, threads: int) -> list[Command]:
    options = ["-k", "thread", "-w", str(threads), "--quiet"]
    return _times(processes, ["-m", "huey.bin.huey_consumer", f"{_PEERS}.huey.app.huey", *options])


def _taskiq(processes: int, threads: int) -> list[Command]:
    sizes = ["--workers", str(processes), "--log-level", "WARNING"]
    return [["-m", "taskiq", "worker", f"{_PEERS}.taskiq.app:broker", *sizes]]


def _rq(processes: int, threads: int) -> list[Command]:
    """A worker of RQ runs one job at a time: as many processes as the others have slots."""
    options = ["-n", str(processes * threads), "-w", "rq.SimpleWorker", "-l", "WARNING"]
    return [["-m", "rq.cli", "worker-pool", *options]]


def _rq_url(urls: Urls, folder: Path) -> dict[str, object]:
    return _urls(urls) | {"RQ_REDIS_URL": urls.redis}


def _arq(processes: int, threads: int) -> list[Command]:
    return _times(processes, ["-m", "arq", f"{_PEERS}.arq.app.WorkerSettings"])


def _procrastinate(processes: int, threads: int) -> list[Command]:
    worker = [
        "-m",
        "procrastinate",
        "-a",
        f"{_PEERS}.procrastinate.app.app",
        "--log-level",
        "warning",
        "worker",
    ]
    return _times(processes, [*worker, "-c", str(threads)])


def _django_q2(processes: int, threads: int) -> list[Command]:
    return [["-m", "django", "qcluster"]]


def _django_tasks_db(processes: int, threads: int) -> list[Command]:
    return _times(processes * threads, ["-m", "django", "db_worker"])


def _a_process_a_slot(processes: int, threads: int) -> int:
    return processes * threads


def _django(
    name: str, title: str, workers: Callable[[int, int], list[Command]], servers: tuple[str, ...]
) -> Side:
    def variables(urls: Urls, folder: Path) -> dict[str, object]:
        settings = f"{_PEERS}.{name}.settings"
        return _urls(urls) | {"DJANGO_SETTINGS_MODULE": settings, "BENCH_DATABASE": folder / "db.sqlite3"}

    migrate = ["-m", "django", "migrate", "--verbosity", "0"]
    return _peer(
        name, title, workers, servers=servers, variables=variables, prepare=(migrate,), pids=_a_process_a_slot
    )


def _bullmq() -> Side:
    folder = "benchmarks/queue/peers/bullmq"
    return Side(
        "bullmq",
        "BullMQ",
        "bullmq",
        ("redis",),
        lambda processes, threads: _times(processes, [f"{folder}/worker.cjs", str(threads)]),
        [f"{folder}/producer.cjs"],
        # CommonJS alone looks there; an ES module would want its packages beside the file.
        variables=lambda urls, _: _urls(urls) | {"NODE_PATH": HOME / "bullmq" / "node_modules"},
    )


CELERY = (
    _stock("celery", "Celery, Redis, threads", "redis", "threads"),
    _stock("celery-prefork", "Celery, Redis, prefork", "redis", "prefork"),
    _stock("celery-amqp", "Celery, RabbitMQ, threads", "amqp", "threads"),
)
PEERS = (
    _peer("dramatiq", "Dramatiq", _dramatiq),
    _peer("huey", "Huey", _huey),
    _peer("taskiq", "taskiq, Redis stream", _taskiq),
    _peer("rq", "RQ, SimpleWorker", _rq, pids=_a_process_a_slot, variables=_rq_url),
    _peer("arq", "arq", _arq),
    _peer(
        "procrastinate",
        "Procrastinate",
        _procrastinate,
        servers=("postgresql",),
        prepare=(["-m", "procrastinate", "-a", f"{_PEERS}.procrastinate.app.app", "schema", "--apply"],),
    ),
    _django("django_q2", "django-q2, Redis", _django_q2, ("redis",)),
    _django("django_tasks_db", "django-tasks-db, PostgreSQL", _django_tasks_db, ("postgresql",)),
    _bullmq(),
)

SIDES = {side.key: side for side in (*OURS, *CELERY, *PEERS)}
PEER_NAMES = ("celery", *(side.key for side in PEERS))

UNEQUAL = (
    "Guarantees: a ledger job is a row with its history, outlives its broker and its worker, and its run is fenced; a"
    " recorded broker job is delivered again after a crash and its row follows. Of the peers Procrastinate and"
    " django-tasks-db keep rows (Procrastinate events too); the others keep nothing about a job that succeeded.",
    "Ours load the whole site (Django, ORM, structlog), the peers their own library; start-up is not in any figure.",
    "Slots: two processes of four threads. Prefork is two processes of one slot. taskiq, arq, Procrastinate and BullMQ"
    " have four coroutines in each of two processes, which pass no GIL around. RQ (SimpleWorker), django-q2 and"
    " django-tasks-db run one job a process, so they get eight processes, which two cores do not love.",
    "Acknowledgement, prefetch, polling and batch sizes are each library's defaults: stock Celery acknowledges early, arq"
    " polls each 0.5 s and django-tasks-db each second, which is their latency. taskiq keeps its window of 100 in all"
    " (4 running, 96 waiting). Results are kept by none; Procrastinate and django-tasks-db keep finished rows, as we do.",
    "A queue is filled in each side's own way for many (ours: enqueue_many, several jobs a message); filling it is timed"
    " in the enqueue figures alone.",
    "Servers: each side has its own, of the same kind and settings (Valkey append-only with a sync each second, PostgreSQL"
    " with fsync, RabbitMQ with its defaults). Both sides of a pair are up at once, so each is measured beside the other's"
    " idle polling.",
    "Server CPU is that of all of a side's servers, PostgreSQL's backends and Erlang included. CPU comes in ticks of 10 ms.",
    "Marks: a handler writes eight bytes into a mapped file; BullMQ's, in Node, takes two system calls for it.",
    "All share one machine with the client: compare inside a pair, never between two runs.",
)
