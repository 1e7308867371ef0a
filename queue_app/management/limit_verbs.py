"""`manage.py queue limits …`: list, show, set, tenant."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from foundation.commands import USAGE, BrainCommand, Failed
from queue_app import limits_told, queues, tenants
from queue_app.models import Queue

NONE = "none"  # takes a limit away


class LimitVerbs:
    """The part of `manage.py queue` that speaks of limits. trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, str]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        parser = self._command.verb(
            "limits",
            self.list,
            "List the queues with limits and what is in use, or act on one. "
            "Example: manage.py queue limits set emails --concurrency 10 --rate 100/60 --fair",
        )
        actions = parser.add_subparsers(title="actions", metavar="", dest="action")
        self._add(actions, "list", self.list, "Queues with limits, and what is in use.", named=False)
        self._add(actions, "show", self.show, "One queue and its tenants.")
        change = self._add(actions, "set", self.set, "Change the limits of a queue.")
        change.add_argument("--fair", action=argparse.BooleanOptionalAction, help="tenants take turns")
        for prefix, whose in (("", ""), ("tenant-", " of each tenant")):
            self._limits(change, prefix, whose)
        tenant = self._add(actions, "tenant", self.tenant, "Change what one tenant may take of a queue.")
        tenant.add_argument("tenant", metavar="TENANT", help='"" for the jobs without one')
        tenant.add_argument(
            "--paused", action=argparse.BooleanOptionalAction, help="its jobs wait; what runs goes on"
        )
        tenant.add_argument("--weight", type=_count, metavar="N", help="turns in each round; default 1")
        self._limits(tenant, "", "")
        tenant.add_argument("--new", action="store_true", help="no job of this tenant need be there yet")

    def list(self, **options: Any) -> None:
        rows = [
            [queue.name, limits_told.of_queue(queue), use.held, use.waiting, use.unstarted]
            for queue, use in limits_told.all_in_use()
        ]
        self._command.table(["queue", "limits", "in_use", "waiting", "unstarted"], rows)

    def show(self, *, name: str, **options: Any) -> None:
        queue = _found(name)
        rows = [
            [found.name, found.weight, limits_told.of_tenant(found.row), found.held, found.waiting]
            for found in tenants.standing(name)
        ]
        columns = ["tenant", "weight", "limits", "in_use", "waiting"]
        limits = {key: getattr(queue, key) for key in queues.LIMITS}
        each = [dict(zip(columns, row, strict=True)) for row in rows]
        self._command.document({"queue": name, **limits, "tenants": each})
        self._command.line(f"{name}: {limits_told.of_queue(queue) or 'no limits'}")
        if gap := limits_told.gap(queue):
            self._command.line(gap)
        self._command.table(columns, rows)

    def set(self, *, name: str, fair: bool | None, **options: Any) -> None:
        changes = _changes("", options) | _changes("tenant_", options)
        if "tenant_max_concurrency" in changes:
            changes["tenant_concurrency"] = changes.pop("tenant_max_concurrency")
        if fair is not None:
            changes["is_fair"] = fair
        _acted(changes, lambda: queues.configure(_found(name).name, **changes, **self._trace()))
        self.show(name=name)

    def tenant(self, *, name: str, tenant: str, weight: Any, new: bool, **options: Any) -> None:
        changes = _changes("", options) | ({} if weight is None else {"weight": _value(weight)})
        changes |= {} if options["paused"] is None else {"paused": options["paused"]}
        _acted(
            changes,
            lambda: tenants.configure(_found(name).name, tenant, is_new=new, **changes, **self._trace()),
        )
        self.show(name=name)

    def _limits(self, parser: Any, prefix: str, whose: str) -> None:
        parser.add_argument(
            f"--{prefix}concurrency", type=_count, metavar="N", help=f"jobs that run at once{whose}, or none"
        )
        parser.add_argument(
            f"--{prefix}rate", type=_rate, metavar="JOBS/SECONDS", help=f"starts in a period{whose}, or none"
        )
        parser.add_argument(
            f"--{prefix}burst", type=_count, metavar="N", help=f"that may start at once{whose}, or none"
        )

    def _add(self, actions: Any, action: str, run: Any, help: str, *, named: bool = True) -> Any:
        parser = self._command.action(actions, action, run, help)
        if named:
            parser.add_argument("name", metavar="QUEUE")
        return parser


def _changes(prefix: str, options: dict[str, Any]) -> dict[str, Any]:
    """The fields that the command line names."""
    found: dict[str, Any] = {}
    if (most := options.get(f"{prefix}concurrency")) is not None:
        found[f"{prefix}max_concurrency"] = _value(most)
    if (rate := options.get(f"{prefix}rate")) is not None:
        none = (None, None)
        found[f"{prefix}rate_count"], found[f"{prefix}rate_period_s"] = none if rate == NONE else rate
        if rate == NONE:
            found[f"{prefix}rate_burst"] = None
    if (burst := options.get(f"{prefix}burst")) is not None:
        found[f"{prefix}rate_burst"] = _value(burst)
    return found


def _acted(changes: dict[str, Any], act: Callable[[], Any]) -> None:
    if not changes:
        raise Failed("no limit was named", "see: manage.py queue limits set --help", USAGE)
    try:
        act()
    except ValueError as error:
        raise Failed(str(error), "nothing was changed; see: manage.py queue limits --help", USAGE) from error


def _found(name: str) -> Queue:
    try:
        return queues.find(name)
    except queues.UnknownQueue as error:
        raise Failed(str(error), "nothing was changed; see: manage.py queue status", USAGE) from error


def _value(given: Any) -> int | None:
    return None if given == NONE else int(given)


def _count(text: str) -> Any:
    """A number or "none". Whether it can be a limit is said by the one place that knows."""
    try:
        return NONE if text == NONE else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, nor {NONE}") from error


def _rate(text: str) -> Any:
    if text == NONE:
        return NONE
    count, _, period = text.partition("/")
    try:
        return int(count), float(period or 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of jobs in a number of seconds, like 100/60, nor {NONE}"
        ) from error
