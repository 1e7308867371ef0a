"""Queues: made on first use or by `create_queue`, and the one place that changes their policy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.db.models import Q

from foundation import audit

from . import policies, quotas, registry
from .broker import topology
from .conf import conf
from .models import Job, Queue, Tenant

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LIMITS = (
    "is_fair", "max_concurrency", "rate_count", "rate_period_s", "rate_burst",
    "tenant_concurrency", "tenant_rate_count", "tenant_rate_period_s", "tenant_rate_burst",
)  # fmt: skip
EDITABLE = (
    "paused", "delivery", "max_retries", "backoff_base_s", "backoff_max_s", "soft_time_limit_s", "time_limit_s", "retention_s",
    "dead_retention_s", *LIMITS,
)  # fmt: skip


class UnknownQueue(ValueError):
    """No queue of this name: no task names it and nobody created it."""


class BadPolicy(ValueError):
    """errors: field → what is wrong with it."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {' '.join(told)}" for field, told in errors.items()))
        self.errors = errors


class InUse(ValueError):
    """The queue cannot be deleted; the message says why."""


def declared() -> set[str]:
    """The queues that code names: those of the tasks, and the default one."""
    return {conf().DEFAULT_QUEUE} | {known.queue for known in registry.registered()}


def consumable() -> set[str]:
    """What a worker that was given no queues consumes: every queue, declared or created, that is not paused."""
    rows = dict(Queue.objects.values_list("name", "paused"))
    return {name for name in declared() | set(rows) if not rows.get(name, False)}


def is_name(name: str) -> bool:
    """Not with the endings by which topology.py names the classes of a queue and its dead letters on RabbitMQ."""
    return _NAME.fullmatch(name) is not None and not name.endswith(topology.ENDINGS)


def check_name(name: str) -> None:
    """Raises ValueError."""
    if not is_name(name):
        raise ValueError(
            f"{name!r} cannot name a queue: use up to 100 letters, digits, dots, dashes and underscores, "
            f"and none of the endings {', '.join(topology.ENDINGS)}"
        )


def create_queue(
    name: str,
    *,
    max_retries: int | None = None,
    backoff_base_s: float | None = None,
    backoff_max_s: float | None = None,
    actor: Any = None,
    source: str = "system",
) -> Queue:
    """The queue of this name, made when it is new; an existing one keeps its policy. ValueError for a bad name."""
    check_name(name)
    policy = {"max_retries": max_retries, "backoff_base_s": backoff_base_s, "backoff_max_s": backoff_max_s}
    with transaction.atomic():
        queue, made = Queue.objects.get_or_create(name=name, defaults=policy)
        policies.forget()
        if made:
            audit.record(actor=actor, action="queue.create", target=queue, after=policy, source=source)
    return queue


def find(name: str) -> Queue:
    """The queue's row, made on first use when code declares it. Raises UnknownQueue."""
    queue = policies.by_name().get(name) or policies.by_name(fresh=True).get(name)
    if queue is not None:
        return queue
    if name in declared():
        return create_queue(name)
    names = declared() | set(Queue.objects.values_list("name", flat=True))
    close = difflib.get_close_matches(name, names, n=1)
    make = "create it first: `manage.py queue policy NAME --new`, or queue_app.queues.create_queue(name)"
    hint = f"did you mean {close[0]!r}?" if close else make
    raise UnknownQueue(f"no queue is called {name!r}; {hint}")


def configure(
    name: str,
    *,
    actor: Any,
    source: str,
    request_id: str | None = None,
    ip: str | None = None,
    **changes: Any,
) -> Queue:
    """Change the policy of a queue, any of EDITABLE. Audited.

    Raises Queue.DoesNotExist; BadLimit for a limit that cannot be one, or with broker delivery, and for the last one while
    tenants have some of their own; BadPolicy for another value.
    """
    unknown = set(changes) - set(EDITABLE)
    if unknown:
        raise TypeError(f"a queue has no {', '.join(sorted(unknown))}")
    with transaction.atomic():
        queue = Queue.objects.select_for_update().get(name=name)
        before = {key: getattr(queue, key) for key in changes}
        limits = {key: changes.get(key, getattr(queue, key)) for key in (*LIMITS, "delivery")}
        quotas.check(limits)
        check_tenants(queue, limits)
        if before != changes:
            vars(queue).update(changes)
            _check(queue)
            Queue.objects.filter(name=name).update(**changes)
            policies.forget()
            trace = {"actor": actor, "source": source, "request_id": request_id, "ip": ip}
            audit.record(action="queue.configure", target=queue, before=before, after=changes, **trace)
    return queue


def check_tenants(queue: Queue, limits: Mapping[str, Any]) -> None:
    """A queue without limits hands out no turns, so it would let the jobs of a paused tenant run. Raises BadLimit."""
    if not policies.has_limits(queue) or policies.has_limits(Queue(**limits)):
        return
    is_limited = Q(paused=True) | Q(max_concurrency__isnull=False) | Q(rate_count__isnull=False)
    names = list(Tenant.objects.filter(is_limited, queue=queue.name).values_list("name", flat=True)[:3])
    if names:
        told = ", ".join(name or "(none)" for name in names)
        raise quotas.BadLimit(
            "is_fair", f"has to stay, or another limit: tenants have limits of their own ({told})"
        )


def pause(name: str, *, is_paused: bool, **trace: Any) -> Queue:
    """Have workers take none of its jobs, or take them again. trace: as `audit.by`. Raises UnknownQueue."""
    return configure(find(name).name, paused=is_paused, **trace)


def delete(
    name: str, *, actor: Any, source: str, request_id: str | None = None, ip: str | None = None
) -> None:
    """Forget a queue's policy and tenants. Raises InUse while it has jobs or a task names it; UnknownQueue."""
    with transaction.atomic():
        queue = Queue.objects.select_for_update().filter(name=name).first()
        if queue is None:
            raise UnknownQueue(f"no queue is called {name!r}")
        if name in declared():
            raise InUse(f"queue {name!r} is named by a task, or is the default one")
        if Job.objects.filter(queue=name).exists():
            raise InUse(f"queue {name!r} has jobs, and their retention is its policy's")
        trace: dict[str, Any] = {"source": source, "request_id": request_id, "ip": ip}
        policy = {field: getattr(queue, field) for field in EDITABLE}
        audit.record(actor=actor, action="queue.delete", target=queue, before=policy, **trace)
        queue.delete()
        policies.forget()


def _check(queue: Queue) -> None:
    try:
        queue.full_clean(validate_unique=False)
    except ValidationError as error:
        told = {
            ("policy" if key == NON_FIELD_ERRORS else key): list(map(str, texts))
            for key, texts in error.message_dict.items()
        }
        raise BadPolicy(told) from error
