"""Queues with limits: their jobs wait for turns, and the governor hands these out.

    a look → lock the queue's row → count the turns that are held → rates → shares of the tenants → grant → publish

Any worker may do it: the one whose runs have ended or that has heard of new jobs does it at once, and the reconciler's
leader looks at all of them now and then. The row's lock makes it one at a time. A turn is on the job's own row, is taken
here and nowhere else, and without it no worker can claim the job; so no limit is exceeded, however many workers there are.
What a dead worker held comes back the way its jobs do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet

from . import clock, fairness, limiting, policies, quotas, turns, wakeup, workers
from .conf import conf
from .fairness import Claimant
from .limiting import Rate
from .models import Queue, Tenant, Turns
from .publication import Wakeup
from .turns import Held

log = structlog.get_logger(__name__)

MOST = 1000  # turns in one look
_BUSY_S = 0.005  # until the next try when another worker is at it
_SOON_S = 0.05  # until a rate's next look when jobs are on their way to the workers
_AGAIN_S = 1.0
_LONGEST_S = 60.0
_LONG_LIST = 500  # names in a condition
_UNLIMITED = 1_000_000
_NOBODY = Held(0, 0)


class Look(NamedTuple):
    """granted: turns that were handed out. wait_s: until there may be more without anybody saying so; None: nobody knows."""

    granted: int
    wait_s: float | None


class Governor:
    """One worker's part. hurry: makes `look` be called at once, from any thread."""

    def __init__(self, hurry: Callable[[], None] = lambda: None) -> None:
        self._hurry = hurry
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._next: dict[str, float] = {}  # by time.monotonic()
        self._slots: tuple[float, Mapping[str, int]] = (float("-inf"), {})

    def ask(self, names: Iterable[str]) -> None:
        """Turns may have come free in these queues, or jobs have come."""
        with self._lock:
            self._asked |= set(names)
        self._hurry()

    def look(self) -> float:
        """At the queues that were asked for and those whose time has come. Seconds until the next time."""
        now = time.monotonic()
        with self._lock:
            asked, self._asked = self._asked, set()
        known = policies.known()
        wanted = asked | {name for name, at in self._next.items() if at <= now}
        for name in sorted(wanted):
            self._next[name] = now + _AGAIN_S  # should the database be away in between
            if name in policies.governed():
                wait_s = hand_out(known[name], slots=self._slots_of(name)).wait_s
            else:
                wait_s = None
            self._next[name] = time.monotonic() + (_LONGEST_S if wait_s is None else wait_s)
        return max(0.0, min((at - time.monotonic() for at in self._next.values()), default=_LONGEST_S))

    def _slots_of(self, name: str) -> int:
        """Of all workers that consume the queue, as they stood within the last second or two."""
        if time.monotonic() - self._slots[0] > conf().RECONCILE_S:
            self._slots = (time.monotonic(), workers.slots())
        return max(1, self._slots[1].get(name, 0))


def let_go_of_unlimited() -> None:
    """What waits for turns in queues that have no limits any more goes to the workers as any other job."""
    for name in turns.queues():
        if name not in policies.governed():
            while turns.let_go(name):
                pass


def adopt(name: str) -> None:
    """What was stored or claimed before the queue had limits counts and waits from now on."""
    taken = 0
    while some := turns.adopt(name):
        taken += some
    if taken:
        log.info("jobs_wait_for_turns", queue=name, jobs=taken)


def hand_out(queue: Queue, *, slots: int) -> Look:
    """Hand out what the limits of the queue and of its tenants allow now. slots: of the workers that consume it."""
    if queue.paused or not (turns.is_awaited(queue.name) or _is_unsettled(queue.name)):
        return Look(0, None)
    with transaction.atomic():
        row = _unheld(queue.name)
        if row is None:
            return Look(0, _BUSY_S)
        granted, wait_s = _hand_out(queue, row, slots)
    if granted:
        wakeup.publish(granted)
    return Look(len(granted), wait_s)


@dataclass(slots=True)
class _Bucket:
    """What a rate leaves now, of the queue or of a tenant. seen: unstarted at the last look; unstarted: now.

    is_cut: the row says that it is used up for longer than this rate can be, so what it keeps is to be written anew.
    """

    rate: Rate | None
    used_to_s: float | None
    seen: int
    now_s: float
    unstarted: int
    is_cut: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None:
            before_s = self.used_to_s
            self.used_to_s = limiting.used_to(self.rate, before_s, self.now_s, unstarted=self.seen)
            self.is_cut = before_s is not None and self.used_to_s < before_s

    @property
    def room(self) -> int:
        if self.rate is None or self.used_to_s is None:
            return _UNLIMITED
        return limiting.allowed(self.rate, self.used_to_s, self.now_s)

    @property
    def wait_s(self) -> float | None:
        if self.rate is None or self.used_to_s is None or self.room:
            return None
        return limiting.wait_s(self.rate, self.used_to_s, self.now_s)

    def take(self, jobs: int) -> None:
        if self.rate is not None and self.used_to_s is not None:
            self.used_to_s += jobs * self.rate.interval_s
        self.unstarted += jobs

    @property
    def rows_unstarted(self) -> int:
        """What the row keeps: without a rate nobody asks."""
        return 0 if self.rate is None else self.unstarted


def _hand_out(queue: Queue, row: Turns, slots: int) -> tuple[list[Wakeup], float | None]:
    """The queue's row is locked. (what to publish after the commit, Look.wait_s)"""
    now_s, held = clock.now().timestamp(), turns.held(queue.name)
    unstarted = sum(of.unstarted for of in held.values())
    bucket = _Bucket(_rate(queue), row.rate_used_to_s, row.unstarted, now_s, unstarted)
    lines = _lines(queue, held, now_s)
    free = min(_free(queue, row, held, slots, now_s), bucket.room)
    position = _take_turns(queue.name, lines, free, row.position)
    granted = [wakeup for line in lines.values() for wakeup in line.granted]
    if granted:
        turns.grant([wakeup.id for wakeup in granted])
    bucket.take(len(granted))
    for line in lines.values():
        line.bucket.take(len(line.granted))
    _record_lines(queue.name, [line for line in lines.values() if line.is_changed], now_s)
    _record_queue(row, bucket, position, held, len(granted))
    return granted, _wait_s(bucket, lines, len(granted))


def _wait_s(bucket: _Bucket, lines: Mapping[str, _Line], granted: int) -> float | None:
    """Until a rate lets the next one go; sooner while a rate does not know what has started."""
    if granted == MOST:
        return 0.0
    waiting = [line for line in lines.values() if line.waits]
    waits = [limited.wait_s for limited in (bucket, *(line.bucket for line in waiting)) if waiting]
    if bucket.rows_unstarted or any(line.bucket.rows_unstarted for line in lines.values()):
        waits.append(_SOON_S if granted else 10 * _SOON_S)
    return min((wait_s for wait_s in waits if wait_s is not None), default=None)


@dataclass(slots=True)
class _Line:
    """A tenant: its jobs that wait, and how many get a turn. waits: whether any do."""

    who: Claimant
    bucket: _Bucket
    row: Tenant
    waits: bool
    granted: list[Wakeup] = field(default_factory=list)
    position: float = 0.0  # after these
    is_at_end: bool = False  # all that wait have been granted

    @property
    def is_changed(self) -> bool:
        return bool(self.granted) or self.row.unstarted != self.bucket.rows_unstarted or self.bucket.is_cut

    def left(self, position: float) -> Claimant:
        """As it stands for the next share, when the queue stood at `position` before the first."""
        got = len(self.granted)
        at = fairness.advanced(self.who, got, position)[0]
        return self.who._replace(position=at, room=0 if self.is_at_end else self.who.room - got)


def _free(queue: Queue, row: Turns, held: Mapping[str, Held], slots: int, now_s: float) -> int:
    """Turns that are left, whatever the rates say."""
    used = sum(of.jobs for of in held.values())
    ended = max(0, row.held - used)
    row.pace = limiting.paced(row.pace, ended, now_s - row.looked_at_s)  # kept when something is granted
    most = limiting.under_way(slots, held=used, ended=ended, pace=row.pace)
    if queue.max_concurrency is not None:
        most = min(most, queue.max_concurrency)
    return min(most - used, MOST)


def _lines(queue: Queue, held: Mapping[str, Held], now_s: float) -> dict[str, _Line]:
    """Of all tenants that wait, and of those whose rate does not know what has started."""
    waiting = turns.tenants(queue.name)
    known = {row.name: row for row in _rows(queue.name, waiting)}
    names = dict.fromkeys([*waiting, *known])
    is_waiting = set(waiting)
    return {
        name: _line(
            queue,
            known.get(name) or Tenant(queue_id=queue.name, name=name),
            held.get(name, _NOBODY),
            now_s,
            waits=name in is_waiting,
        )
        for name in names
    }


def _line(queue: Queue, row: Tenant, held: Held, now_s: float, *, waits: bool) -> _Line:
    own = _rate(row) or quotas.rate(
        queue.tenant_rate_count, queue.tenant_rate_period_s, queue.tenant_rate_burst
    )
    bucket = _Bucket(own, row.rate_used_to_s, row.unstarted, now_s, held.unstarted)
    most = queue.tenant_concurrency if row.max_concurrency is None else row.max_concurrency
    room = _UNLIMITED if most is None else max(0, most - held.jobs)
    room = 0 if row.paused else room
    who = Claimant(row.name, row.weight or 1, row.position, min(room, bucket.room) if waits else 0)
    return _Line(who, bucket, row, waits)


def _rows(queue: str, waiting: Sequence[str]) -> QuerySet[Tenant]:
    """Of those that wait or are unsettled; of all where that would be a long list."""
    rows = Tenant.objects.filter(queue=queue)
    return rows.filter(Q(name__in=waiting) | Q(unstarted__gt=0)) if len(waiting) <= _LONG_LIST else rows


def _take_turns(queue: str, lines: Mapping[str, _Line], free: int, position: float) -> float:
    """Fill the lines' `granted` and `position`. The queue's position after that; before it stood at `position`.

    Who has how many jobs waiting is not counted: a share that finds fewer is shared out again.
    """
    while free > 0:
        shares = fairness.share([line.left(position) for line in lines.values()], free, position=position)
        wanted = {name: len(lines[name].granted) + jobs for name, jobs in shares.items()}
        for name, found in turns.first(queue, wanted).items():
            line = lines[name]
            free -= len(found) - len(line.granted)
            line.granted, line.is_at_end = found, len(found) < wanted[name]
        if not any(lines[name].is_at_end for name in wanted):
            break
    after = position
    for line in lines.values():
        line.position, reached = fairness.advanced(line.who, len(line.granted), position)
        after = max(after, reached)
    return after


def _record_lines(queue: str, lines: Iterable[_Line], now_s: float) -> None:
    rows = [
        Tenant(
            queue_id=queue,
            name=line.who.name,
            position=line.position,
            rate_used_to_s=line.bucket.used_to_s,
            unstarted=line.bucket.rows_unstarted,
            seen_at=datetime.fromtimestamp(now_s, UTC),
        )
        for line in lines
    ]
    if rows:
        # MySQL knows no target of a conflict: any unique key is one.
        target = ["queue", "name"] if connection.features.supports_update_conflicts_with_target else None
        fields = ["position", "rate_used_to_s", "unstarted", "seen_at"]
        Tenant.objects.bulk_create(rows, update_conflicts=True, unique_fields=target, update_fields=fields)


def _record_queue(
    row: Turns, bucket: _Bucket, position: float, held: Mapping[str, Held], granted: int
) -> None:
    if not granted and row.unstarted == bucket.rows_unstarted and not bucket.is_cut:
        return  # an idle look writes nothing
    row.unstarted, row.rate_used_to_s, row.position = bucket.rows_unstarted, bucket.used_to_s, position
    fields = ["unstarted", "rate_used_to_s", "position"]
    if granted:
        row.held = sum(of.jobs for of in held.values()) + granted
        row.looked_at_s = bucket.now_s
        fields += ["held", "pace", "looked_at_s"]
    row.save(update_fields=fields)


def _rate(limited: quotas.Limited) -> Rate | None:
    return quotas.rate(limited.rate_count, limited.rate_period_s, limited.rate_burst)


def _is_unsettled(queue: str) -> bool:
    """Whether a rate does not know yet what has started of what it let go."""
    if Turns.objects.filter(queue=queue, unstarted__gt=0).exists():
        return True
    return Tenant.objects.filter(queue=queue, unstarted__gt=0).exists()


def _unheld(queue: str) -> Turns | None:
    """The queue's row, locked, and made at the first look; None when another worker has it."""
    skip = connection.features.has_select_for_update_skip_locked
    rows = Turns.objects.select_for_update(skip_locked=skip).filter(queue=queue)
    row = rows.first()
    if row is None and Turns.objects.get_or_create(queue=queue)[1]:
        row = rows.first()
    return row
