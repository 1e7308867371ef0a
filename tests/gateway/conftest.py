from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvloop

from gateway import bucket, keys, tokens
from gateway.auth import Identity, KeyRecord
from gateway.balancer import picker
from gateway.breaker import Breaker
from gateway.conf import GatewayConf, conf
from gateway.limiter import Limiter
from gateway.metrics import Tally
from gateway.pipeline import Route, Target
from gateway.routing import Router
from gateway.snapshot import Holder, Snapshot
from gateway.worker import Worker, serve

from .client import Client
from .odd_upstream import OddUpstream, running

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def gateway_conf() -> Iterator[Callable[..., None]]:
    """Sets keys of BRAIN["GATEWAY"] until the test ends."""
    before = conf()

    def change(**values: Any) -> None:
        conf.bind(replace(conf(), **values))

    conf.bind(GatewayConf(ACCESS_LOG=False, TIMEOUT_CHECK_S=0.02))
    yield change
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
    return Target(f"127.0.0.1:{port}", "127.0.0.1", port, Breaker(3, 5.0))


def route(path: str, targets: list[Target], **values: Any) -> Route:
    return Route(path, picker("round_robin", [(one, 1) for one in targets]), tuple(targets), **values)


def snapshot(routes: list[Route], **values: Any) -> Snapshot:
    good = Identity("key:tester", "tester", frozenset({"operator"}), digest=keys.digest(b"good-key"))
    issuer = tokens.Issuer("brain", "HS256", SECRET, issuer="brain")
    given: dict[str, Any] = {
        "version": 1,
        "router": Router((one.path, one) for one in routes),
        "routes": tuple(routes),
        "keys": {good.digest: KeyRecord(good)},
        "verifier": tokens.Verifier([issuer]),
        "targets": tuple({id(t): t for one in routes for t in one.targets}.values()),
    }
    return Snapshot(**(given | values))


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
def serving(routes: list[Route], prefix: str, **values: Any) -> Iterator[RunningEdge]:
    """An edge in a thread of this process. values: of its snapshot."""
    holder = Still()
    holder.snapshot = snapshot(routes, **values)
    worker = Worker(holder=holder)
    worker.limiter = Limiter(prefix=prefix)
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
        thread.join(10)
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
    """One upstream behind /api (credentials needed), /open, /limited (3 at once, 60 a minute), /admins and
    /reading."""
    one = target(port)
    limits = (bucket.per_window("minute", 60, 60, capacity=3),)
    return [
        route("/api", [one], timeout_s=5.0),
        route("/open", [one], auth_required=False, timeout_s=5.0),
        route("/limited", [one], limits=limits, timeout_s=5.0),
        route("/admins", [one], roles=frozenset({"admin"})),
        route("/reading", [one], methods=frozenset({"GET"})),
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
    served.worker.tally = Tally()
    served.worker.limiter = Limiter(prefix=prefix)
    served.targets[0].breaker = Breaker(3, 5.0)
    one.seen.clear()
    return served


@pytest.fixture
def behind(_steady: tuple[RunningEdge, OddUpstream]) -> OddUpstream:
    """The upstream behind `edge`."""
    return _steady[1]
