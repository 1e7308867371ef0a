"""What all processes counted together, kept in the platform's Redis.

stats (this process) → every STATS_EVERY_S what is new → Redis, exactly once → totals() → pages, API, command

While Redis is away nothing is lost: the counts stay where they are, and what is new is reckoned from what Redis has
confirmed. A forked child begins anew, as its counts do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import redis
import structlog
from django.core.cache import InvalidCacheBackendError

from . import backends, connections, seldom, slow, stats
from .conf import conf
from .latencies import Latencies
from .lock_waits import started
from .redis_store import Script
from .shelves import link_of
from .tallies import Tallies, Tally

log = structlog.get_logger(__name__)

_LUA = Path(__file__).with_name("lua")
ADD = Script(_LUA.joinpath("stats.lua").read_text())
RESET = Script(_LUA.joinpath("stats_reset.lua").read_text())
MAX_FIELDS = 50_000  # of the hash: reading it then takes Redis some 10 ms
_ROWS = 500  # of one script: Redis runs it in about a millisecond
_KEPT_S = 86_400
_EXIT_S = 2.0  # that a process waits at its end for its last counts to arrive
_BUCKET, _SUM = "b", "us"  # names in the hash: event, "operation/b<bucket>", "operation/us" (microseconds)

Field = tuple[str, str, str]  # alias, namespace, name


class _Batch(NamedTuple):
    number: int
    rows: dict[Field, int]


@dataclass(frozen=True, slots=True)
class Totals:
    """is_shared: of all processes; else of this one, for Redis does not answer or is not there. since: the last reset."""

    tallies: Tallies
    is_shared: bool
    since: datetime | None = None


class Shipper:
    """Of one process: what Redis has confirmed, and the batch whose answer is missing."""

    def __init__(self) -> None:
        self._sending = threading.Lock()
        self._confirmed: dict[Field, int] = {}
        self._epoch = ""
        self._batch: _Batch | None = None
        self._number = 0
        self._name = uuid.uuid4().hex
        self._failed = False

    @property
    def backlog(self) -> int:
        """Counts that Redis has not confirmed yet."""
        return sum(n for _, n in self._news())

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failed

    def missed(self) -> None:
        """A question of the same Redis failed: without news `send` asks nothing, and would not know."""
        self._failed = True

    def send(self, link: Any) -> None:
        """Add what is new. Raises redis.RedisError, and then sends the same again the next time."""
        with self._sending:
            self._failed = True
            is_wanted = self._batch is None or self._add(link, self._batch)
            news = self._news()
            while is_wanted and (rows := dict(islice(news, _ROWS))):
                self._number += 1
                self._batch = _Batch(self._number, rows)
                is_wanted = self._add(link, self._batch)
            slow.ship(link, key("slow"))
            self._failed = False

    def begin_anew(self, epoch: str) -> None:
        """Leave out what was counted so far: somebody has reset the totals."""
        with self._sending:
            self._leave_out(epoch)

    def _leave_out(self, epoch: str) -> None:
        self._confirmed = dict(_readings())
        self._epoch, self._batch = epoch, None

    def _add(self, link: Any, batch: _Batch) -> bool:
        """False: the totals were reset meanwhile, and nothing of this news is wanted any more."""
        flat = [text for field, n in batch.rows.items() for text in (*field, str(n))]
        keys = [key("epoch"), key("counts"), key(f"added:{self._name}")]
        args = [self._epoch, str(batch.number), str(MAX_FIELDS), stats.OTHER, str(_KEPT_S), *flat]
        epoch, is_added = _run(link, ADD, keys, args)
        if not is_added:
            self._leave_out(epoch.decode())
            return False
        self._epoch, self._batch = epoch.decode(), None
        for field, n in batch.rows.items():
            self._confirmed[field] = self._confirmed.get(field, 0) + n
        return True

    def _news(self) -> Iterator[tuple[Field, int]]:
        for field, n in _readings():
            if n != (known := self._confirmed.get(field, 0)):
                yield field, n - known


def key(name: str) -> str:
    """Beside the cache's own prefix, so that clearing the cache leaves it; the braces keep all on one cluster node."""
    return f"{connections.key_prefix()}.stats:{{totals}}:{name}"


def is_there() -> bool:
    """Whether CACHES["default"] is a Redis at all."""
    return _link() is not None


def flush() -> bool:
    """Add what is new to the totals. False: Redis does not answer, and it will be added later."""
    link = _link()
    if link is None:
        return False
    try:
        _shipper.send(link)
    except (redis.RedisError, OSError) as error:
        seldom.warn(log, "cache_stats_kept", error=type(error).__name__)
        return False
    return True


def backlog() -> int:
    return _shipper.backlog


def is_failing() -> bool:
    return _shipper.is_failing


def totals() -> Totals:
    """Of all processes since the last reset, this one's newest counts among them; never raises for Redis."""
    if flush():
        with contextlib.suppress(redis.RedisError, OSError):
            epoch, found = _read(_link())
            return Totals(_tallies(found), True, _moment(epoch))
    return Totals(of_process(), is_shared=False)


def of_process() -> Tallies:
    """Of this process since it started."""
    return {
        (counted.alias, counted.namespace): Tally(counted.events(), counted.operations())
        for counted in stats.known()
    }


def slow_operations() -> list[slow.Slow]:
    """Of all processes, or of this one where Redis does not answer (`is_failing`); the newest first."""
    if flush():
        try:
            return slow.shared(_link(), key("slow"))
        except (redis.RedisError, OSError):
            _shipper.missed()
    return slow.recent()


def reset() -> None:
    """Begin the totals anew, for all processes: what they counted and had not sent is left out. Raises redis.RedisError.

    The processes' own counts, which Prometheus reads, go on: a counter never falls.
    """
    link = _link()
    if link is None:
        for counted in stats.known():
            counted.forget()
        slow.forget()
        return
    epoch = _run(link, RESET, [key("epoch"), key("counts"), key("slow")], [])
    slow.forget()
    _shipper.begin_anew(epoch.decode())


# --- the thread ------------------------------------------------------------------------------------------------------


class Housekeeper:
    """A daemon thread that flushes every STATS_EVERY_S, from a process's first count to its end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_wanted = True  # False: tests, which flush by hand

    def start(self) -> None:
        if self._thread is None and self.is_wanted:
            self._thread = started(self._run, "cache-stats")

    def stop(self) -> None:
        """Flush for the last time; a Redis that hangs holds the process up for _EXIT_S."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join(_EXIT_S)

    def _run(self) -> None:
        while not self._stop.wait(conf().STATS_EVERY_S):
            flush()
        flush()


def start() -> None:
    """What an app's start calls: the thread comes with the first count, so that a process without counts has none."""
    stats.at_first(lambda: housekeeper.start())


# --- parts -----------------------------------------------------------------------------------------------------------


def _readings() -> Iterator[tuple[Field, int]]:
    """This process's counts as numbers that only rise."""
    for counted in stats.known():
        alias, namespace = _printable(counted.alias), _printable(counted.namespace)
        for event, n in counted.events().items():
            yield (alias, namespace, event), n
        for operation, histogram in counted.operations().items():
            for number, n in histogram.buckets.items():
                yield (alias, namespace, f"{operation}/{_BUCKET}{number}"), n
            yield (alias, namespace, f"{operation}/{_SUM}"), round(histogram.total_s * 1_000_000)


def _printable(name: str) -> str:
    return name.replace("\0", "\ufffd")  # NUL parts a field's name


def _link() -> Any:
    """The way to the default cache's servers; None where it is none of ours, or has none."""
    try:
        return link_of(backends.backend("default"))
    except InvalidCacheBackendError:
        return None


def _run(link: Any, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
    try:
        return link.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
    except redis.exceptions.NoScriptError:  # it did not run
        return link.call("EVAL", script.text, len(keys), *keys, *arguments)


def _read(link: Any) -> tuple[bytes | None, Mapping[bytes, bytes]]:
    epoch, found = link.pipeline([("GET", key("epoch")), ("HGETALL", key("counts"))])
    for reply in (epoch, found):
        if isinstance(reply, redis.RedisError):
            raise reply
    return epoch, dict(zip(found[::2], found[1::2], strict=True))


def _tallies(found: Mapping[bytes, bytes]) -> Tallies:
    tallies: Tallies = {}
    for name, n in found.items():
        alias, namespace, event = name.decode("utf-8", "replace").split("\0", 2)
        _put(tallies.setdefault((alias, namespace), Tally()), event, int(n))
    return tallies


def _put(tally: Tally, name: str, n: int) -> None:
    operation, slash, what = name.rpartition("/")
    if not slash:
        tally.events[name] = n
        return
    histogram = tally.operations.setdefault(operation, Latencies())
    if what == _SUM:
        histogram.total_s = n / 1_000_000
    else:
        histogram.buckets[int(what.removeprefix(_BUCKET))] = n


def _moment(epoch: bytes | None) -> datetime | None:
    return datetime.fromtimestamp(int(epoch) / 1_000_000, UTC) if epoch else None


def _forked() -> None:
    global _shipper, housekeeper
    is_wanted = housekeeper.is_wanted
    _shipper, housekeeper = Shipper(), Housekeeper()
    housekeeper.is_wanted = is_wanted


_shipper = Shipper()
housekeeper = Housekeeper()
atexit.register(lambda: housekeeper.stop())
os.register_at_fork(after_in_child=_forked)
