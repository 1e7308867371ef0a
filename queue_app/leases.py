"""Which worker leads a duty that must have one leader: a lease in the database, compared by the database's clock."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db.models import Q

from .ledger import Clock
from .models import Lease


def take(name: str, holder: UUID, *, lease_s: float) -> str | None:
    """Become or stay the leader for `lease_s` seconds: the position of the duty, or None when another leads."""
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
