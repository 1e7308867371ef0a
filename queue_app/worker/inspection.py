"""`celery inspect active`, `reserved` and `stats` with the ledger's jobs, which are none of Celery's requests."""

from __future__ import annotations

from typing import Any

from celery.worker import control
from django.utils import timezone

from .engine import Engine
from .underway import Underway

_ALIASES = {"active": "dump_active", "reserved": "dump_reserved"}
_STOCK = {name: control.Panel.data[name] for name in ("active", "reserved", "stats")}


def install(engine: Engine) -> None:
    """Into the commands of this worker process. `args` stays empty: payloads are not shown to whoever reaches the broker."""

    def active(state: Any, **options: Any) -> list[dict[str, Any]]:
        return [*_STOCK["active"](state, **options), *map(_running, engine.runner.underway())]

    def reserved(state: Any, **options: Any) -> list[dict[str, Any]]:
        waiting = engine.held - set(engine.running())
        return [*_STOCK["reserved"](state, **options), *({"id": str(id)} for id in sorted(waiting))]

    def stats(state: Any, **options: Any) -> dict[str, Any]:
        return {**_STOCK["stats"](state, **options), "queue": _figures(engine)}

    for name, command in {"active": active, "reserved": reserved, "stats": stats}.items():
        control.Panel.data[name] = control.Panel.data[_ALIASES.get(name, name)] = command


def _running(underway: Underway) -> dict[str, Any]:
    run = underway.run
    return {
        "id": str(run.id),
        "name": run.name,
        "args": [],
        "kwargs": {},
        "time_start": timezone.now().timestamp() - underway.took_s,
        "worker_pid": underway.pid,
        "delivery_info": {"routing_key": run.queue, "priority": run.priority, "redelivered": run.attempt > 1},
    }


def _figures(engine: Engine) -> dict[str, Any]:
    return {
        "worker": str(engine.worker_id),
        "held": len(engine.held),
        "running": len(engine.running()),
        "window": engine.window.size,
        "refused": engine.refused,
        "stuck": len(engine.runner.stuck()),
    }
