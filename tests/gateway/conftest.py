from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway import bucket, keys, tokens
from gateway.auth import Identity
from gateway.calls import Route
from gateway.conf import GatewayConf, conf
from gateway.dial import Dial
from gateway.holder import Holder
from gateway.identities import Identities
from gateway.limiter import Limiter
from gateway.policy import Policy
from gateway.pool import Service, Target
from gateway.revoked import Revoked
from gateway.routing import ANY_METHOD, Router, Rule
from gateway.snapshot import Snapshot
from gateway.tally import Tally
from gateway.tls import Certificate
from gateway.worker import Worker, serve
from tests import warm
from tests.foundation.databases import default_database

from .client import Client, eventually
from .odd_upstream import OddUpstream, running

ROOT = Path(__file__).parents[2]
SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def gateway_conf() -> Iterator[Callable[..., None]]:
    """Sets keys of BRAIN["GATEWAY"] until the test ends."""
    before = conf()

    def change(**values: Any) -> None:
        conf.bind(replace(conf(), **values))

    # A machine that stands still for a second is no store that does not answer, and no connection that is too old.
    patient = {"LIMITER_TIMEOUT_S": 10.0, "UPSTREAM_IDLE_S": 60.0}
    conf.bind(GatewayConf(ACCESS_LOG=False, TIMEOUT_CHECK_S=0.02, UNIX_SOCKET_DIRS=("/run",), **patient))
    yield change
    conf.bind(before)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def every_database(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    django_db_setup: None,
    django_db_blocker: Any,
) -> Iterator[None]:
    """The module's tests on each database, with committed rows: a file or a private server as Django's default."""
    if request.param == "mariadb":
        pytest.importorskip("MySQLdb")
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('gateway')}/db.sqlite3"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    with django_db_blocker.unblock(), default_database(url, "foundation", "gateway"):
        yield


@pytest.fixture(autouse=True)
def _what_documents_name() -> Iterator[None]:
    """/run/tasks.sock, and a plugin."""
    before = conf()
    conf.bind(replace(before, UNIX_SOCKET_DIRS=("/run",), PLUGINS=("tests.gateway.documents.Deep",)))
    yield
    conf.bind(before)


@pytest.fixture
def upstream() -> Iterator[OddUpstream]:
    with running() as upstreams:
        yield upstreams[0]


class Still(Holder):
    """A snapshot that no database changes."""

    def refresh(self) -> bool:
        return False

    def mark_used(self, digests: Iterable[bytes]) -> None:
        pass


def target(port: int) -> Target:
    name = f"127.0.0.1:{port}"
    made = Target("odd", name)
    made.dial = Dial(("127.0.0.1", port), name.encode())
    return made


# Opens after three failures, for long; nobody is probed or ejected.
SENSITIVE = Policy(
    breaker_volume=3, breaker_window_s=600.0, breaker_open_s=60.0, breaker_open_max_s=60.0, outlier_failures=0,
    health_enabled=False, slow_start_s=0.0,
)  # fmt: skip


def service(
    targets: list[Target], *, policy: Policy = SENSITIVE, strategy: str = "round_robin", **values: Any
) -> Service:
    return Service("odd", targets, strategy, random=lambda: 0.5, policy=policy, **values)


def route(path: str, targets: list[Target] | Service, *, timeout_s: float = 30.0, **values: Any) -> Route:
    to = targets if isinstance(targets, Service) else service(targets)
    given = {"methods": ANY_METHOD, "response_timeout_s": timeout_s, "idle_timeout_s": timeout_s}
    given |= {"connect_timeout_s": 30.0} | values
    return Route(path, to, path=path, **given)


def snapshot(routes: list[Route], **values: Any) -> Snapshot:
    good = Identity("key:tester", "tester", frozenset({"operator"}), key_digest=keys.digest(b"good-key"))
    issuer = tokens.Issuer("brain", "HS256", SECRET, issuer="brain")
    services = tuple({id(one.service): one.service for one in routes}.values())
    given: dict[str, Any] = {
        "version": 1,
        "router": Router(Rule(one, one.path, one.path_kind, methods=one.methods) for one in routes),
        "routes": tuple(routes),
        "services": services,
        "identities": Identities({good.key_digest: good}, tokens.Verifier([issuer]), Revoked()),
        "targets": tuple({id(t): t for one in services for t in one.targets}.values()),
    }
    return Snapshot(**(given | values))


def calm(target: Target) -> None:
    """As if nothing had ever failed."""
    target.breaker = type(target.breaker)()
    target.follow(target.policy, lambda: 0.5)


@dataclass
class RunningEdge:
    port: int
    worker: Worker
    targets: list[Target]

    def client(self, **options: Any) -> Client:
        return Client(self.port, **options)

    def ask(self, data: bytes) -> Any:
        with self.client() as client:
            return client.send(data).answer()

    def inflight(self) -> int:
        return sum(one.inflight for one in self.targets)


@contextlib.contextmanager
def serving(
    routes: list[Route], prefix: str, *, certificate: Certificate | None = None, **values: Any
) -> Iterator[RunningEdge]:
    """An edge in a thread of this process. values: of its snapshot."""
    holder = Still()
    holder.snapshot = snapshot(routes, **values)
    worker = Worker(holder=holder, limiter=Limiter(prefix=prefix), certificate=certificate)
    worker.access_log = None
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    loop = uvloop.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=_run, args=(loop, serve(worker, listener, stop)))
    thread.start()
    try:
        yield RunningEdge(port, worker, list(worker.snapshot.targets))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive(), "the edge did not stop"


@pytest.fixture
def start_edge(gateway_conf: Callable[..., None], prefix: str) -> Iterator[Callable[..., RunningEdge]]:
    """start_edge(routes) serves them until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda routes, **values: stack.enter_context(serving(routes, prefix, **values))


def _run(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work)


def usual_routes(port: int) -> list[Route]:
    """One upstream behind /api (credentials needed), /open, /limited (3 at once, then one a minute), /admins and
    /reading."""
    one = service([target(port)])
    limits = (bucket.per_window("hour", 60, 3600, capacity=3),)
    return [
        route("/api", one),
        route("/open", one, auth_required=False),
        route("/limited", one, limits=limits),
        route("/admins", one, roles=frozenset({"admin"})),
        route("/reading", one, methods=frozenset({"GET"})),
    ]


@pytest.fixture(scope="module")
def _steady() -> Iterator[tuple[RunningEdge, OddUpstream]]:
    """Starting and stopping an edge takes a while, so a module's tests share one."""
    with running() as (one,), serving(usual_routes(one.port), "test:steady:") as served:
        yield served, one


@pytest.fixture
def edge(
    _steady: tuple[RunningEdge, OddUpstream], gateway_conf: Callable[..., None], prefix: str
) -> RunningEdge:
    """The module's edge over `usual_routes`, with figures, limits and a breaker of this test's own."""
    served, one = _steady
    # What the last test left to be noticed would be counted as this one's.
    assert eventually(lambda: not served.worker.connections and not served.inflight() and not one.at_work)
    served.worker.tally = Tally()
    served.worker.limiter = Limiter(prefix=prefix)
    calm(served.targets[0])
    one.seen.clear()
    return served


@pytest.fixture
def behind(_steady: tuple[RunningEdge, OddUpstream]) -> OddUpstream:
    """The upstream behind `edge`."""
    return _steady[1]


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables in it: making it takes seconds, copying it none."""
    directory = tmp_path_factory.mktemp("migrated")
    file = directory / "db.sqlite3"
    environment = {"BRAIN_DATA_DIR": str(directory), "DATABASE_URL": f"sqlite:///{file}"}
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    warm.run(migrate, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, timeout=120)
    return file


@pytest.fixture
def data_dir(tmp_path: Path, valkey: str, _migrated: Path) -> dict[str, str]:
    """A platform of its own: a migrated SQLite file, the session's Valkey."""
    file = shutil.copy(_migrated, tmp_path / "db.sqlite3")
    return {"BRAIN_DATA_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{file}", "REDIS_URL": valkey}
