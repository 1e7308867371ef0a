"""One process of the edge: its snapshot, its figures, its connections, and the few things that happen on a
timer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog
import uvicorn
from django.db import close_old_connections

from . import metrics
from .conf import conf
from .edge import Edge, edge_class
from .exchange import LocalAnswer
from .limiter import Limiter
from .snapshot import Holder, Snapshot

T = TypeVar("T")

log = structlog.get_logger(__name__)

_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Worker:
    """directory: where the workers of one edge share their figures; None: this one is alone."""

    def __init__(self, directory: Path | None = None, holder: Holder | None = None) -> None:
        self.holder = holder or Holder()
        self.tally = metrics.Tally()
        self.limiter = Limiter()
        self.connections: set[Edge] = set()
        self.used_keys: set[bytes] = set()
        self.started = time.monotonic()
        self._directory = directory
        self._local: dict[bytes, LocalAnswer] = {
            b"/gateway/health": self._health,
            b"/gateway/metrics": self._metrics,
        }

    @property
    def snapshot(self) -> Snapshot:
        return self.holder.snapshot

    def local_answer(self, path: bytes) -> LocalAnswer | None:
        return self._local.get(path)

    # --- what the edge answers itself ---

    async def _health(self) -> tuple[int, bytes, str]:
        snapshot = self.snapshot
        targets = [
            {"name": target.name, "breaker": target.breaker.state, "inflight": target.inflight}
            for target in snapshot.targets
        ]
        dead = any(
            route.targets and all(target.breaker.state == "open" for target in route.targets)
            for route in snapshot.routes
        )
        loaded = snapshot.version >= 0
        document = {
            "status": "ok" if loaded and not dead else "degraded",
            "snapshot_version": snapshot.version,
            "routes": len(snapshot.routes),
            "uptime_s": round(time.monotonic() - self.started, 1),
            "connections": len(self.connections),
            "targets": targets,
        }
        return 200 if loaded else 503, orjson.dumps(document), _JSON

    async def _metrics(self) -> tuple[int, bytes, str]:
        mine = self._figures()
        body = await asyncio.to_thread(lambda: metrics.render(metrics.gather(self._directory, mine)))
        return 200, body, _PROMETHEUS

    def _figures(self) -> dict[str, Any]:
        return metrics.figures(self.tally, self.snapshot.targets, self.snapshot.version)

    # --- on a timer ---

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(lambda: conf().SNAPSHOT_POLL_S, self.refresh))
            group.create_task(_every(lambda: conf().TIMEOUT_CHECK_S, self._sweep))
            group.create_task(_every(lambda: conf().LAST_USED_S, self._write_last_used))
            if self._directory is not None:
                group.create_task(_every(lambda: conf().METRICS_PUBLISH_S, self._publish))

    async def refresh(self) -> None:
        """Look for a new configuration. The snapshot is swapped in the thread: one assignment, seen by the
        next request."""
        before = self.snapshot.targets
        if await asyncio.to_thread(_database, self.holder.refresh):
            for target in before:
                if target.retired:
                    _close_idle(target.idle, older_than=float("inf"))

    async def _sweep(self) -> None:
        now = time.monotonic()
        for edge in [edge for edge in self.connections if edge.deadline < now]:
            edge.expire()
        for target in self.snapshot.targets:
            _close_idle(target.idle, older_than=now - conf().UPSTREAM_IDLE_S)

    async def _publish(self) -> None:
        if self._directory is not None:
            await asyncio.to_thread(metrics.publish, self._directory, self._figures())

    async def _write_last_used(self) -> None:
        used, self.used_keys = self.used_keys, set()
        if used:
            await asyncio.to_thread(_database, lambda: self.holder.mark_used(used))

    async def stop(self) -> None:
        """Give everything back, and leave the last figures and uses behind."""
        for edge in list(self.connections):
            edge.waiting.clear()
            if edge.exchange is not None:
                edge.exchange.abort()
            edge.transport.abort()
        for target in self.snapshot.targets:
            _close_idle(target.idle, older_than=float("inf"))
        await self._publish()
        await self._write_last_used()


async def serve(worker: Worker, listener: socket.socket, stop: asyncio.Event | None = None) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT (or `stop`), then finish what is under way."""
    await worker.refresh()
    server = uvicorn.Server(
        uvicorn.Config(
            app=_no_application,
            http=edge_class(worker),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=max(1, round(conf().SHUTDOWN_GRACE_S)),
            backlog=2048,
        )
    )
    timers = asyncio.create_task(worker.run(), name="edge-timers")  # noqa: TID251  (held until the end)
    watcher = asyncio.create_task(_stop_with(server, stop, timers))  # noqa: TID251
    host, port = listener.getsockname()[:2]
    log.info("edge_ready", host=host, port=port, pid=os.getpid(), snapshot_version=worker.snapshot.version)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in (watcher, timers):
            task.cancel()
        await asyncio.gather(watcher, timers, return_exceptions=True)
        await worker.stop()
        log.info("edge_stopped", pid=os.getpid())


async def _stop_with(server: uvicorn.Server, stop: asyncio.Event | None, timers: asyncio.Task[None]) -> None:
    """Stop the server when told to, and when the timers died: an edge without timeouts must not go on."""
    told = (
        asyncio.ensure_future(stop.wait()) if stop is not None else asyncio.get_running_loop().create_future()
    )
    await asyncio.wait({told, timers}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if timers.done() and not timers.cancelled():
        log.error("edge_timers_failed", exc_info=timers.exception())
    server.should_exit = True


def run(worker: Worker, listener: socket.socket) -> None:
    """`serve` on an event loop of its own, with uvloop where it is installed. Returns after an orderly
    stop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped; by then there is nothing left to do.
        signal.signal(number, lambda *_: None)
    factory = uvicorn.Config(app=_no_application, log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(worker, listener))


def _database(work: Callable[[], T]) -> T:
    """Database work in a thread that may have slept through a restart of the database."""
    close_old_connections()
    return work()


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("the edge answers every request itself")


async def _every(interval_s: Callable[[], float], work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval_s())
        await work()


def _close_idle(idle: list[Any], *, older_than: float) -> None:
    for up in [up for up in idle if up.idle_since <= older_than or not up.alive]:
        idle.remove(up)
        up.drop()
