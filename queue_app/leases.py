"""Which worker leads a duty that must have one leader: a lease in the database, compared by the database's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from django.db.models import Q

from .clock import Clock
from .models import Lease


class Leadership:
    """One worker's part in a duty. It asks for the lease when a third of that has passed, not at every look.

    holder: the id of the worker's row, which may change. lease_s: read each time, as settings are. position: the duty's
    while this worker leads, else None.
    """

    def __init__(self, name: str, holder: Callable[[], UUID], *, lease_s: Callable[[], float]) -> None:
        self._name, self._holder, self._lease_s = name, holder, lease_s
        self._me: UUID | None = None  # as whom it leads
        self._until = 0.0  # a third of the lease: the rest is for a renewal that takes long, and a second try
        self.position: str | None = None

    @property
    def rest_s(self) -> float:
        """Seconds until one that does not lead asks again: each time costs statements."""
        return self._lease_s() / 3

    def holds(self) -> bool:
        """Whether this worker leads, after it has asked for the lease if need be."""
        began, me = time.monotonic(), self._holder()
        if self.position is not None and self._me == me and began < self._until:
            return True
        self._me, self.position = me, take(self._name, me, lease_s=self._lease_s())
        self._until = began + self.rest_s
        return self.position is not None

    def advance(self, before: str, after: str) -> bool:
        """As the function below. After the commit: `advanced`."""
        me = self._me
        return me is not None and advance(self._name, me, before=before, after=after, lease_s=self._lease_s())

    def advanced(self, after: str) -> None:
        self.position = after
        self._until = time.monotonic() + self.rest_s

    def lose(self) -> None:
        """Another leads, or may: ask at the next look."""
        self.position = None

    def give_up(self) -> None:
        """Let another lead at once."""
        if self._me is not None and self.position is not None:
            give_up(self._name, self._me)
        self.position = None


def take(name: str, holder: UUID, *, lease_s: float) -> str | None:
    """Become or stay the leader for `lease_s` seconds: the position of the duty, or None when another leads."""
    if Lease.objects.filter(~Q(holder=holder), name=name, until__gt=Clock()).exists():
        return (
            None  # what all idle workers but one hear every few seconds: one question, and nothing is locked
        )
    free = Q(holder=holder) | Q(holder=None) | Q(until__lte=Clock())
    mine = Lease.objects.filter(free, name=name)
    changes = {"holder": holder, "until": Clock() + timedelta(seconds=lease_s)}
    if not mine.update(**changes):
        made = Lease.objects.get_or_create(name=name, defaults={"until": Clock()})[1]
        if not made or not mine.update(**changes):
            return None
    return str(Lease.objects.values_list("position", flat=True).get(name=name))


def advance(name: str, holder: UUID, *, before: str, after: str, lease_s: float) -> bool:
    """Move the position, in the transaction of the work that it stands for. False when another leads, or has moved it.

    The first statement of that transaction: the row's lock then keeps a second leader out until it ends.
    """
    mine = Lease.objects.filter(name=name, holder=holder, position=before)
    return bool(mine.update(position=after, until=Clock() + timedelta(seconds=lease_s)))


def give_up(name: str, holder: UUID) -> None:
    """Let another lead at once."""
    Lease.objects.filter(name=name, holder=holder).update(holder=None, until=Clock())
