"""The recorder: events from the stream → rows and history, by one worker at a time.

    stream → a batch of entries → fold → one transaction: position, rows, history → trim

The position, the last entry that was written, stands in the database and moves in the same transaction as the rows. So a
recorder may die at any point: the next one reads from there, and nothing is lost or written twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from django.db import DataError, IntegrityError, connection, transaction
from kombu.exceptions import KombuError
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from redis.exceptions import RedisError, ResponseError

from queue_app import leases, ledger
from queue_app.conf import conf
from queue_app.statements import recording
from queue_app.states import State
from queue_app.transport import parked

from . import events, stream
from .events import Event

log = structlog.get_logger(__name__)

NAME = "recorder"
_BATCH = 2000  # events in one transaction, about
_ENTRIES = 200  # read at once, until it is known how many events an entry holds
_BLOCK_S = 0.5  # waits for news this long at most
_GATHER_S = 0.05  # a small batch costs a transaction as a large one does
_LEASE_S = 10.0
_TRIM_S = 1.0  # between two trims of what is recorded
_LAST_S = 3.0  # for what is left when the worker stops
_START = "0-0"

Entry = tuple[bytes, dict[bytes, bytes]]


class Standing(NamedTuple):
    """How the stream stands. lag_s: age of the oldest entry that is not recorded."""

    entries: int
    lag_s: float


class Deposed(Exception):
    """Another worker leads."""


class Recorder:
    """One worker's; it records while it leads. holder: the id of the worker's row, which may change."""

    def __init__(self, holder: Callable[[], UUID]) -> None:
        self._leadership = leases.Leadership(NAME, holder, lease_s=lambda: _LEASE_S)
        self._trimmed_at = 0.0
        self._entries = _ENTRIES
        self._has_failed = False  # the last time; then it leads again, and that is no news

    @property
    def leads(self) -> bool:
        return self._leadership.position is not None

    def look(self) -> float:
        """Record what there is. Called again and again, each time after as many seconds as it answers."""
        try:
            if not self._leads():
                return self._leadership.rest_s
            more = self._record_next(wait_s=_BLOCK_S)
            self._trim()
        except Deposed:
            self._leadership.lose()
            return 0.0
        except Exception:
            self._leadership.lose()  # the database knows the position
            self._has_failed = True
            raise
        self._has_failed = False
        return 0.0 if more else _GATHER_S

    def stop(self) -> None:
        """Record what is left, for a few seconds at most, and let another lead."""
        if not self.leads:
            return
        until = time.monotonic() + _LAST_S
        with suppress(Deposed):
            while time.monotonic() < until and self._record_next(wait_s=0):
                pass
            self._trimmed_at = 0.0
            self._trim()
        self._leadership.give_up()

    def _leads(self) -> bool:
        led = self.leads
        if self._leadership.holds() and not led and not self._has_failed:
            log.info("recorder_leads", position=self._leadership.position or _START)
        return self.leads

    def _record_next(self, *, wait_s: float) -> bool:
        """Whether there may be more. Raises Deposed."""
        before = self._leadership.position or ""
        with stream.client(waits=True) as (client, key):
            found = _read(
                client, key, before or _START, self._entries, min(wait_s, conf().PUBLISH_TIMEOUT_S / 2)
            )
        if not found:
            self._check_position()
            return False
        told, after = _unpack(found)
        more = len(found) == self._entries or len(told) >= _BATCH
        self._write(told, before, after)
        self._leadership.advanced(after)
        # A publication is an entry of one event, a worker's may hold hundreds: read what makes one transaction.
        self._entries = max(1, min(_BATCH, _BATCH * len(found) // max(1, len(told))))
        return more

    def _write(self, told: list[tuple[str, Event]], before: str, after: str) -> None:
        try:
            with transaction.atomic():
                self._advance(before, after)
                _record(told)
        except (DataError, IntegrityError) as error:
            log.warning("events_recorded_singly", events=len(told), error=type(error).__name__)
            with transaction.atomic():
                self._advance(before, after)
                _record_singly(told)

    def _advance(self, before: str, after: str) -> None:
        if not self._leadership.advance(before, after):
            raise Deposed

    def _check_position(self) -> None:
        """A stream that was emptied with its server may count from an earlier clock: read it from its start."""
        position = self._leadership.position
        if not position:
            return
        with stream.client() as (client, key):
            last = _last(client, key)
        if last is not None and _order(last) < _order(position):
            log.warning("stream_restarted", position=position, last=last)
            with transaction.atomic():
                self._advance(position, "")
            self._leadership.advanced("")

    def _trim(self) -> None:
        position = self._leadership.position
        if not position or time.monotonic() - self._trimmed_at < _TRIM_S:
            return
        self._trimmed_at = time.monotonic()
        milliseconds, number = _order(position)
        with stream.client() as (client, key):
            client.xtrim(key, minid=f"{milliseconds}-{number + 1}", approximate=False)


def standing() -> Standing:
    """How the stream stands; entries that are recorded but not yet trimmed count."""
    with stream.client() as (client, key):
        entries = int(client.xlen(key))
        if not entries:
            return Standing(0, 0.0)
        position = _position()
        oldest = client.xrange(key, min=f"({position}" if position else "-", count=1)
        seconds, microseconds = client.time()
    if not oldest:
        return Standing(entries, 0.0)
    told_at = _order(oldest[0][0].decode())[0] / 1000
    return Standing(entries, max(0.0, seconds + microseconds / 1e6 - told_at))


def families() -> Iterator[Metric]:
    """The stream's metrics; none while its server is away."""
    try:
        found, parked_ever = standing(), _parked_ever()
    except (RedisError, OSError, KombuError):
        return
    help_ = "Entries in the stream of broker jobs' events, recorded or not yet."
    yield GaugeMetricFamily("brain_queue_event_entries", help_, value=found.entries)
    help_ = "Age of the oldest event that is not recorded yet."
    yield GaugeMetricFamily("brain_queue_event_lag_seconds", help_, value=found.lag_s)
    help_ = "Messages parked by our transport: unreadable, or their consumers died too often."
    family = CounterMetricFamily("brain_queue_parked_messages", help_, labels=["queue"])
    for queue, number in parked_ever.items():
        family.add_metric([queue], number)
    yield family


def _parked_ever() -> dict[str, int]:
    if not stream.rides():
        return {}
    with stream.client() as (client, key):
        return parked.count(client, key.removesuffix(stream.KEY))


def _position() -> str:
    from queue_app.models import Lease

    return Lease.objects.filter(name=NAME).values_list("position", flat=True).first() or ""


def _read(client: Any, key: str, position: str, count: int, wait_s: float) -> list[Entry]:
    found = client.xread({key: position}, count=count, block=int(wait_s * 1000) or None)
    if not found:
        return []
    entries: list[Entry] = []
    size = 0
    # One stream was asked for: [[key, entries]], or a mapping with RESP 3.
    for entry in next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]:
        entries.append(entry)
        size += entry[1].get(b"e", b"").count(b"],[") + 1
        if size >= _BATCH:
            break
    return entries


def _unpack(entries: list[Entry]) -> tuple[list[tuple[str, Event]], str]:
    told: list[tuple[str, Event]] = []
    for id, fields in entries:
        try:
            worker, found = events.unpack(fields)
        except ValueError as error:
            log.error("event_unreadable", entry=id.decode(), error=type(error).__name__)
            continue
        told += [(worker, event) for event in found]
    return told, entries[-1][0].decode()


def _record(told: list[tuple[str, Event]]) -> None:
    hand = recording.of(connection.vendor)
    ids = sorted({events.job_id(event[events.ID]) for _, event in told})
    if not ids:
        return
    with connection.cursor() as cursor:
        folded = events.fold(told, hand.standing(cursor, ids))
        recording.write(hand, cursor, folded.rows.values(), folded.steps)
    dead = {UUID(row.id): row.error for row in folded.rows.values() if row.state == State.DEAD_LETTER}
    if dead:
        ledger.note_fingerprints(dead)


def _record_singly(told: list[tuple[str, Event]]) -> None:
    """One event that no column takes must not hold up all the others."""
    for pair in told:
        try:
            with transaction.atomic():
                _record([pair])
        except (DataError, IntegrityError) as error:
            log.error("event_not_recorded", task_id=str(pair[1][events.ID])[:200], error=type(error).__name__)


def _last(client: Any, key: str) -> str | None:
    try:
        found = client.xinfo_stream(key)["last-generated-id"]
    except ResponseError:  # there is none
        return None
    return found.decode() if isinstance(found, bytes) else str(found)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
