"""One process of the edge: its snapshot, its figures, its connections, and the few things that happen on a timer."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import structlog
import uvicorn
from django.db import close_old_connections, connections

from . import forwarding, metrics, ongoing, overdue, stale, standing, watch
from .access_log import AccessLog
from .board import Board
from .conf import conf
from .edge import Edge, edge_class
from .holder import Holder
from .limiter import Limiter
from .listener import Server
from .pool import Target
from .prober import Prober
from .snapshot import Snapshot
from .tally import Tally
from .ticker import repeat
from .tls import LOOK_S, Certificate
from .traffic import Traffic

if TYPE_CHECKING:
    from .errors import BadRequest
    from .exchange import Exchange

T = TypeVar("T")
LocalAnswer = Callable[[], Awaitable[tuple[int, bytes, str]]]
"""Gives (status, body, content type)."""

log = structlog.get_logger(__name__)

SWITCH_S = 0.0005
SCRAPE_REST, SCRAPE_REST_S = 9.0, 1.0  # so many times as long as it took, and no longer
DATABASE_WAIT_S = 2.0  # less than the supervisor waits for a worker that ends

_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Worker:
    """directory: where the workers of one edge share their figures; None: this one is alone. certificate: None: plain
    HTTP."""

    def __init__(
        self,
        directory: Path | None = None,
        holder: Holder | None = None,
        *,
        limiter: Limiter | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.holder = holder or Holder(Path(conf().SNAPSHOT_FILE) if conf().SNAPSHOT_FILE else None)
        self.tally = Tally(max_series=conf().METRICS_MAX_SERIES)
        self.traffic = Traffic(self.tally)
        self.limiter = limiter or Limiter()
        self.certificate = certificate
        self.limiter.on_failure = self.tally.store_failed
        self.holder.living.events = self.tally
        self.holder.living.plugins.on_failure = self.tally.plugin_failed
        self.connections: set[Edge] = set()
        self.used_keys: set[bytes] = set()
        self.started = self.now = time.monotonic()  # now: to TIMEOUT_CHECK_S, for who can do with that
        self.access_log = (
            AccessLog(conf().ACCESS_LOG_FILE, sample=conf().ACCESS_LOG_SAMPLE) if conf().ACCESS_LOG else None
        )
        self.stale = stale.Answers()
        self.trusted = forwarding.networks(conf().TRUSTED_PROXIES)
        self._prober = Prober(lambda: self.snapshot.services)
        self._board = Board(lambda: self.snapshot.services)
        self._directory = directory
        self._scrape: asyncio.Task[bytes] | None = None  # the next one
        self._scraping, self._scrape_at = asyncio.Lock(), 0.0
        self._ids = itertools.count(secrets.randbits(32))
        self._trace = secrets.randbits(64)
        self._id_prefix = secrets.token_hex(8).encode()
        self._local: dict[bytes, LocalAnswer] = {
            b"/gateway/health": self._health,
            b"/gateway/metrics": self._metrics,
        }

    @property
    def snapshot(self) -> Snapshot:
        return self.holder.snapshot

    def next_id(self) -> bytes:
        """A request id that no other process has; eight times as fast as a UUID."""
        return b"%b%016x" % (self._id_prefix, next(self._ids))

    def new_trace(self) -> bytes:
        """A `traceparent` of a trace that begins here. Its low bits spread evenly, as samplers go by them."""
        self._trace = number = (self._trace + 0x9E37_79B9_7F4A_7C15) & 0xFFFF_FFFF_FFFF_FFFF
        return b"00-%b%016x-%016x-01" % (self._id_prefix, number, number | 1)

    def local_answer(self, path: bytes) -> LocalAnswer | None:
        return self._local.get(path)

    # --- what requests leave behind ---

    def over(self, exchange: Exchange) -> None:
        """Once an exchange is over: the admin's figures, and its line of the access log."""
        route, identity = exchange.route, exchange.identity
        consumer = identity.name if identity is not None else ""
        self.traffic.count(
            consumer, route.name if route is not None else "", exchange.status or exchange.head_sent
        )
        if self.access_log is not None:
            self._log(exchange, consumer)

    def _log(self, exchange: Exchange, consumer: str) -> None:
        if self.access_log is None:
            return
        route, identity = exchange.route, exchange.identity
        wall = time.time()  # noqa: TID251  (a date in a log)
        self.access_log.write(
            wall, exchange.status or exchange.head_sent, exchange.code, exchange.method, exchange.path.decode("latin-1"),
            exchange.host, route.name if route is not None else "", route.service.name if route is not None else "",
            exchange.upstream_name, consumer, identity.plan if identity is not None else "", exchange.client_ip, exchange.request_id.decode(),
            exchange.trace_id, exchange.bytes_in, exchange.bytes_out, time.monotonic() - exchange.started,
            exchange.upstream_s, len(exchange.tried),
        )  # fmt: skip

    def refused(self, fault: BadRequest, client_ip: str, request_id: str) -> None:
        """Input that never became a request."""
        self.tally.refused(fault.code)
        self.tally.finished("", "", "", "other", fault.status, "", 0.0, 0.0)
        if self.access_log is not None:
            wall = time.time()  # noqa: TID251
            self.access_log.write(
                wall, fault.status, fault.code, "", "", "", "", "", "", "", "", client_ip, request_id, "", 0, 0,
                0.0, 0.0, 0,
            )  # fmt: skip

    # --- what the edge answers itself ---

    async def _health(self) -> tuple[int, bytes, str]:
        snapshot, now = self.snapshot, time.monotonic()
        targets = [
            {
                "service": target.service,
                "name": target.name,
                "state": target.state,
                "health": target.health.state,
                "breaker": target.breaker.state,
                "inflight": target.inflight,
                "reason": target.why(now),
            }
            for target in snapshot.targets
        ]
        dead = [
            service.name
            for service in snapshot.services
            if service.targets and not any(target.allows(now) for target in service.targets)
        ]
        is_loaded = snapshot.version >= 0
        document = {
            "status": "ok" if is_loaded and not dead and not snapshot.outages else "degraded",
            "snapshot_version": snapshot.version,
            "routes": len(snapshot.routes),
            "uptime_s": round(now - self.started, 1),
            "connections": len(self.connections),
            "services_down": dead,
            # Without the reasons, which are for operators: whoever reaches the port sees this.
            "out_of_service": [
                {"kind": one.kind, "name": one.name, "code": one.code} for one in snapshot.outages
            ],
            "targets": targets,
        }
        return 200 if is_loaded else 503, orjson.dumps(document), _JSON

    async def _metrics(self) -> tuple[int, bytes, str]:
        """Those who ask while others are answered share the next answer, and all of them take a tenth of the time at most:
        whoever reaches the port may ask, and it can be half a megabyte."""
        if self._scrape is None:
            self._scrape = asyncio.create_task(self._scraped())  # noqa: TID251  (held until it begins, then by its askers)
        return 200, await asyncio.shield(self._scrape), _PROMETHEUS

    async def _scraped(self) -> bytes:
        async with self._scraping:
            await asyncio.sleep(self._scrape_at - time.monotonic())
            self._scrape, began = None, time.monotonic()  # who comes from here on would get what is too old
            mine = self._figures()
            body = await asyncio.to_thread(lambda: metrics.render(metrics.gather(self._directory, mine)))
            ended = time.monotonic()
            self._scrape_at = ended + min(SCRAPE_REST * (ended - began), SCRAPE_REST_S)
            return body

    def _figures(self) -> metrics.Figures:
        now = time.monotonic()
        return metrics.figures(
            self.tally,
            standing.of(self.snapshot, now),
            self.snapshot.version,
            snapshot_age_s=now - self.holder.known_at,
            connections=len(self.connections),
            is_store_up=self.limiter.is_store_up,
            log_dropped=self.access_log.dropped if self.access_log is not None else 0,
            traffic_dropped=self.traffic.dropped,
            outages=self.snapshot.outages,
        )

    # --- on a timer ---

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.follow(self.refresh))
            group.create_task(repeat(self._sweep, lambda: conf().TIMEOUT_CHECK_S))
            # Only timeouts are worth an edge: whatever else fails, requests are served.
            group.create_task(
                repeat(self._write_last_used, lambda: conf().LAST_USED_S, trouble="last_use_failed")
            )
            group.create_task(self._prober.run())
            group.create_task(self._board.run())
            group.create_task(
                repeat(self._send_traffic, lambda: conf().TRAFFIC_FLUSH_S, trouble="traffic_failed")
            )
            if self.certificate is not None:
                group.create_task(
                    repeat(self._renew_certificate, lambda: LOOK_S, trouble="certificate_failed")
                )
            if self._directory is not None:
                group.create_task(
                    repeat(self._publish, lambda: conf().METRICS_PUBLISH_S, trouble="metrics_failed")
                )

    async def refresh(self) -> None:
        """Look for a new configuration. The snapshot is swapped in the thread: one assignment, seen by the next
        request."""
        if await asyncio.to_thread(_database, self.holder.refresh):
            for target in self.holder.retired:
                _close_idle(target, older_than=float("inf"))
            self.tally.retire(standing.names(self.snapshot), time.monotonic())
            self._look_at_callers()

    def _look_at_callers(self) -> None:
        wall = time.time()  # noqa: TID251  (tokens and keys expire in wall time)
        ongoing.look(self.connections, self.snapshot.identities, wall)

    async def _renew_certificate(self) -> None:
        if self.certificate is not None:
            await asyncio.to_thread(self.certificate.renew)

    async def _sweep(self) -> None:
        self.now = now = time.monotonic()
        self.limiter.accounts.nodes = self._board.processes
        for edge in [edge for edge in self.connections if overdue.is_overdue(edge, now)]:
            try:
                overdue.end(edge)
            except Exception:  # one connection's trouble does not end the others
                log.exception("expire_failed")
                edge.transport.abort()
        self._look_at_callers()
        for target in self.snapshot.targets:
            _close_idle(target, older_than=now - conf().UPSTREAM_IDLE_S)

    async def _publish(self) -> None:
        if self._directory is not None:
            try:
                await asyncio.to_thread(metrics.publish, self._directory, self._figures())
            except OSError as error:  # a full disk costs the figures, not the requests
                log.warning("metrics_not_published", error=str(error))

    async def _send_traffic(self) -> None:
        wall = time.time()  # noqa: TID251  (the minutes that the admin shows)
        self.traffic.collect(wall)
        await asyncio.to_thread(self.traffic.send)

    async def _write_last_used(self) -> None:
        used, self.used_keys = self.used_keys, set()
        if used:
            await asyncio.to_thread(_database, lambda: self.holder.mark_used(used))

    async def stop(self) -> None:
        """Give everything back, and leave the last figures and uses behind."""
        for edge in list(self.connections):
            edge.waiting.clear()
            if edge.exchange is not None:
                edge.exchange.abort("gateway_stopped")
            edge.transport.abort()
        for target in self.snapshot.targets:
            _close_idle(target, older_than=float("inf"))
        for last in (self.limiter.aclose, self._publish, self._write_last_used, self._send_traffic):
            try:
                await last()
            except Exception:  # the others are worth no less for it
                log.exception("not_left_behind")
        if self.access_log is not None:
            await asyncio.to_thread(self.access_log.close)


async def serve(worker: Worker, listener: socket.socket, stop: asyncio.Event | None = None) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT (or `stop`), then finish what is under way."""
    certificate = worker.certificate
    await worker.refresh()
    server = Server(
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
            ssl_context_factory=None if certificate is None else lambda *_: certificate.context,
        )
    )
    timers = asyncio.create_task(worker.run(), name="edge-timers")  # noqa: TID251  (held until the end)
    watcher = asyncio.create_task(_stop_with(server, stop, timers))  # noqa: TID251
    host, port = listener.getsockname()[:2]
    log.info(
        "edge_ready", host=host, port=port, tls=certificate is not None, pid=os.getpid(),
        snapshot_version=worker.snapshot.version,
    )  # fmt: skip
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
    _wait_less_for_the_database()
    certificate = worker.certificate
    if certificate is not None:
        signal.signal(signal.SIGHUP, lambda *_: certificate.renew(at_once=True))
    # What was imported stays for good, and requests leave no cycles behind: looking through all of it again and again
    # costs a busy edge a tenth of its time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # Threads read the configuration and write figures beside the requests. By default one may keep the interpreter for 5 ms,
    # and the loop asks for it back with every callback.
    sys.setswitchinterval(SWITCH_S)
    factory = uvicorn.Config(app=_no_application, log_config=None).get_loop_factory()
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped; by then there is nothing left to do.
        signal.signal(number, lambda *_: None)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(until_told(worker, listener))


async def until_told(worker: Worker, listener: socket.socket) -> None:
    """`serve` until a signal, also one that comes while the first snapshot is read, which uvicorn would never hear of."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(worker, listener, stop)


def _wait_less_for_the_database() -> None:
    """An edge has its snapshot, or a copy of it: neither its start nor its end has to wait for a pool of connections as
    long as a page of the admin does."""
    pool = connections["default"].settings_dict["OPTIONS"].get("pool")
    if isinstance(pool, dict):
        pool["timeout"] = min(pool.get("timeout", DATABASE_WAIT_S), DATABASE_WAIT_S)


def _database(work: Callable[[], T]) -> T:
    """Database work in a thread that may have slept through a restart of the database."""
    close_old_connections()
    return work()


async def _no_application(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("the edge answers every request itself")


def _close_idle(target: Target, *, older_than: float) -> None:
    for up in [up for up in target.idle if up.idle_since <= older_than or not up.alive]:
        target.idle.remove(up)
        up.drop()
