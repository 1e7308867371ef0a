"""Active health checks: one process of the fleet probes each target, all of them go by what it finds.

Who probes holds a lease in Redis, renewed while it lives; a result is a key that everybody reads. Without Redis each
process probes for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import orjson
import structlog
from redis.exceptions import RedisError

from cache_app import connections as store
from cache_app.link import all_good

from . import health
from .health import UNHEALTHY, Health
from .policy import Policy
from .pool import Service, Target
from .ticker import repeat

log = structlog.get_logger(__name__)

PREFIX = "brain:gateway:"
LEASE_INTERVALS = 2.0  # a prober that died is replaced after so many intervals
RESULT_INTERVALS = 10.0  # a result that nobody renews is forgotten
MAX_PROBES = 64  # at a time
STORE_TIMEOUT_S = 0.5  # for what one look asks of Redis
STORE_RETRY_S = 2.0  # a Redis that failed is left alone for so long
MAX_LINE_BYTES = 8192
NOT_HTTP = "the answer is not HTTP/1.1"
MAX_INTERIM = 8  # 1xx answers before the real one

# KEYS: leases. ARGV: this prober's name, then the lease's milliseconds for each key. Which ones it holds (1 or 0): a
# lease that is free is taken, its own is renewed.
_HOLD = """
local held = {}
for i, key in ipairs(KEYS) do
  local holder = redis.call('GET', key)
  if not holder or holder == ARGV[1] then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[i + 1])
    held[i] = 1
  else
    held[i] = 0
  end
end
return held
"""
# KEYS: leases. ARGV: this prober's name. A lease that has gone to another meanwhile is left alone.
_RELEASE = """
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end
"""


class Dial(Protocol):
    """How a target is reached: its pinned (ip, port) or unix path; server_name: for TLS; host: of the header."""

    @property
    def address(self) -> tuple[str, int] | str: ...
    @property
    def tls(self) -> ssl.SSLContext | None: ...
    @property
    def server_name(self) -> str: ...
    @property
    def host(self) -> bytes: ...


@dataclass(slots=True)
class _Watch:
    """What this process knows about probing one target. due: monotonic. seen: checked_at of the last result."""

    due: float
    held: bool = False
    probing: bool = False
    seen: float = 0.0
    policy: Policy = field(default_factory=Policy)
    targets: list[Target] = field(default_factory=list)  # snapshots may overlap for a moment


class Prober:
    """services: those of the snapshot in use; asked at each look, every poll_s seconds at most.

    prefix: of the keys `<prefix>{probe}:lease:…` and `<prefix>{probe}:health:…`, one of each a target.
    """

    def __init__(
        self, services: Callable[[], Iterable[Service]], *, prefix: str = PREFIX, poll_s: float = 1.0
    ) -> None:
        self.name = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._services, self._poll_s = services, poll_s
        self._prefix = f"{prefix}{{probe}}:"  # one hash slot: the scripts take many keys
        self._watches: dict[str, _Watch] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_PROBES)
        self._store_down_until = -1.0  # monotonic; negative: it is up

    async def run(self) -> None:
        """Until cancelled; then the leases are free at once."""
        try:
            await repeat(self.look, self._pause_s, trouble="prober_failed")
        finally:
            for probe in self._probes:
                probe.cancel()
            await asyncio.gather(*self._probes, return_exceptions=True)
            with contextlib.suppress(RedisError, OSError):
                await self._release()

    async def look(self) -> None:
        """Learn what others found out, and start the probes that are due here."""
        self._follow_services()
        if time.monotonic() >= self._store_down_until:
            try:
                async with asyncio.timeout(STORE_TIMEOUT_S):
                    await self._share()
                self._store_is(up=True)
            except Exception as error:  # noqa: BLE001  (whatever it is, targets are probed)
                self._store_is(up=False, error=error)
        now, alone = time.monotonic(), self._store_down_until >= 0
        for key, watch in self._watches.items():
            watch.held = watch.held or alone
            if watch.held and not watch.probing and now >= watch.due:
                watch.probing = True
                probe = asyncio.get_running_loop().create_task(self._probe(key, watch))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)

    def _pause_s(self) -> float:
        """Leases must be renewed and probes started in time, also where the interval is shorter than poll_s."""
        shortest_s = min((watch.policy.health_interval_s for watch in self._watches.values()), default=1.0)
        return min(self._poll_s, shortest_s / 3) * (0.9 + 0.2 * random.random())  # noqa: S311

    def _follow_services(self) -> None:
        now = time.monotonic()
        known, self._watches = self._watches, {}
        for service in self._services():
            for target in service.targets:
                if not service.policy.health_enabled:
                    _forget(target, now)
                    continue
                key = f"{service.name}/{target.name}"
                watch = self._watches.get(key)
                if watch is None:
                    first_s = min(service.policy.health_interval_s, 1.0) * random.random()  # noqa: S311
                    watch = self._watches[key] = known.get(key) or _Watch(due=now + first_s)
                    watch.policy, watch.targets = service.policy, []
                watch.targets.append(target)

    # --- with the others ---

    async def _share(self) -> None:
        if not self._watches:
            return
        keys = list(self._watches)
        leases = [self._prefix + "lease:" + key for key in keys]
        spans_ms = [
            round(self._watches[key].policy.health_interval_s * LEASE_INTERVALS * 1000) for key in keys
        ]
        commands = [
            ("EVAL", _HOLD, len(leases), *leases, self.name, *spans_ms),
            ("MGET", *(self._prefix + "health:" + key for key in keys)),
        ]
        held, results = all_good(await store.alink(store.default_url()).pipeline(commands))
        for key, mine, result in zip(keys, held, results, strict=True):
            watch = self._watches.get(key)
            if watch is None:
                continue
            # A new holder goes on where the last one was.
            if result is not None and not (mine and watch.held):
                self._adopt(watch, result)
            watch.held = bool(mine)

    def _adopt(self, watch: _Watch, result: bytes | str) -> None:
        try:
            found = orjson.loads(result)
            fresh, proof = Health(**found["health"]), bool(found["proof"])
        except (ValueError, TypeError, KeyError):
            return  # another version of this code wrote it
        if fresh.checked_at == watch.seen:
            return
        watch.seen = fresh.checked_at
        now = time.monotonic()
        for target in watch.targets:
            before, target.health = target.health.state, replace(fresh)
            _tell(target, before, proof=proof, now=now)

    async def _publish(self, key: str, watch: _Watch, proof: bool) -> None:
        result = orjson.dumps({"health": asdict(watch.targets[0].health), "proof": proof})
        kept_ms = round(watch.policy.health_interval_s * RESULT_INTERVALS * 1000)
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                name = self._prefix + "health:" + key
                await store.alink(store.default_url()).call("SET", name, result, "PX", kept_ms)
        except (RedisError, OSError) as error:
            self._store_is(up=False, error=error)

    async def _release(self) -> None:
        held = [self._prefix + "lease:" + key for key, watch in self._watches.items() if watch.held]
        if held and self._store_down_until < 0:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await store.alink(store.default_url()).call("EVAL", _RELEASE, len(held), *held, self.name)

    def _store_is(self, *, up: bool, error: Exception | None = None) -> None:
        was_up = self._store_down_until < 0
        self._store_down_until = -1.0 if up else time.monotonic() + STORE_RETRY_S
        if up != was_up:
            if error is None:
                log.info("prober_shares")
            else:
                known = isinstance(error, RedisError | OSError)  # TimeoutError is an OSError
                log.warning("prober_alone", error=type(error).__name__, exc_info=None if known else error)

    # --- one probe ---

    async def _probe(self, key: str, watch: _Watch) -> None:
        try:
            async with self._slots:
                fault = await fault_of(watch.targets[0].dial, watch.policy)
            if not watch.held:  # another has taken over while this one was waiting
                return
            proof = self._count(watch, fault)
            if self._store_down_until < 0:
                await self._publish(key, watch, proof)
        except Exception:
            log.exception("probe_failed", target=key)
        finally:
            watch.probing = False

    def _count(self, watch: _Watch, fault: str) -> bool:
        """Count the probe in for every snapshot's target; whether it is proof that the target serves."""
        wall = time.time()  # noqa: TID251  (shown to people)
        pause_s = health.pause_s(watch.policy, random.random)
        now = time.monotonic()
        watch.due, watch.seen = now + pause_s, wall
        first = watch.targets[0].health
        # A connection says little about a target that was ejected for its answers, unless it could not be had before.
        proof = not fault and (bool(watch.policy.health_path) or first.failures > 0)
        states = [target.health.state for target in watch.targets]
        first.observe(fault, wall, wall + pause_s, watch.policy)
        for target, before in zip(watch.targets, states, strict=True):
            target.health = first
            _tell(target, before, proof=proof, now=now)
        return proof


def _tell(target: Target, before: str, *, proof: bool, now: float) -> None:
    target.probed(before, proof=proof, now=now)
    if target.health.state != before:
        log.info(
            "target_health",
            service=target.service,
            target=target.name,
            state=target.health.state,
            reason=target.health.reason or None,
        )


def _forget(target: Target, now: float) -> None:
    """Its probes were switched off: what they found last must not keep it out for ever."""
    if target.health.state == UNHEALTHY:
        target.health = Health()
        target.probed(UNHEALTHY, proof=False, now=now)


async def fault_of(dial: Dial, policy: Policy) -> str:
    """Why the target is not well, in words for people; empty when it is."""
    try:
        async with asyncio.timeout(policy.health_timeout_s), _connection(dial) as (reader, writer):
            if not policy.health_path:
                return ""
            status = await _ask(reader, writer, dial.host, policy.health_path)
    except TimeoutError:
        return f"no answer within {policy.health_timeout_s:g} s"
    except ssl.SSLCertVerificationError as error:
        return f"TLS: {error.verify_message}"
    except ssl.SSLError as error:
        return f"TLS: {error.reason or 'the handshake failed'}"
    except ConnectionRefusedError:
        return "connection refused"
    except (ConnectionError, asyncio.IncompleteReadError):
        return "the connection was closed"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else type(error).__name__
    except asyncio.LimitOverrunError:
        return NOT_HTTP
    except ValueError as error:
        return str(error)
    good = any(status in statuses for statuses in health.statuses(policy.health_statuses))
    return "" if good else f"status {status}"


@contextlib.asynccontextmanager
async def _connection(dial: Dial) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    tls: dict[str, Any] = {"ssl": dial.tls, "server_hostname": dial.server_name} if dial.tls else {}
    if isinstance(dial.address, str):
        opened = asyncio.open_unix_connection(dial.address, limit=MAX_LINE_BYTES, **tls)
    else:
        opened = asyncio.open_connection(*dial.address, limit=MAX_LINE_BYTES, **tls)
    reader, writer = await opened
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: bytes, path: str) -> int:
    """The status of a GET. Raises ValueError for what is not HTTP."""
    writer.write(
        b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: brain-gateway-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        % (path.encode(), host)
    )
    for _ in range(MAX_INTERIM):
        line = await reader.readuntil(b"\n")
        version, _, rest = line.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError(NOT_HTTP)
        status = int(rest[:3])
        if status >= 200:
            return status
        while (await reader.readuntil(b"\n")).strip():
            pass
    raise ValueError("only interim answers")
