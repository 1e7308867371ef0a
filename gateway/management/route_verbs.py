"""`manage.py gateway routes` and `gateway target on|off|drain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from foundation.commands import BrainCommand, Failed
from gateway import changes
from gateway.models import Route, Service, Target

_STATES = {"on": "active", "off": "off", "drain": "draining"}


class RouteVerbs:
    """trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, Any]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        self._command.verb("routes", self.routes, "The routes as a table.")
        target = self._command.verb(
            "target", self.target, "Turn a target of a service on or off, or drain it."
        )
        target.add_argument(
            "action", choices=list(_STATES), help="drain: requests under way end, no new ones"
        )
        target.add_argument("service")
        target.add_argument("url", help="as the service has it")

    def routes(self, **options: Any) -> None:
        found = Route.objects.select_related("service", "plan").prefetch_related("service__targets")
        columns = (
            "name", "path", "kind", "hosts", "methods", "service", "targets", "plan", "auth", "roles", "timeout_s",
            "enabled",
        )  # fmt: skip
        self._command.table(columns, [_row(route) for route in found])

    def target(self, *, action: str, service: str, url: str, **options: Any) -> None:
        row = Target.objects.select_related("service").filter(service__name=service, url=url).first()
        if row is None:
            raise _unknown(service, url)
        was, state = row.state, _STATES[action]
        changes.set_target_state(row, state, **self._trace())
        told = f"was {state} already" if was == state else f"{was} -> {state}"
        self._command.line(f"{service} {url}: {told}")
        self._command.document({"service": service, "url": url, "before": was, "state": state})


def _row(route: Route) -> tuple[Any, ...]:
    targets = [t.url if t.state == "active" else f"{t.url} ({t.state})" for t in route.service.targets.all()]
    return (
        route.name,
        route.path,
        route.path_kind,
        " ".join(route.hosts) or "all",
        " ".join(route.methods) or "all",
        route.service.name,
        ", ".join(targets),
        route.plan.name if route.plan else None,
        "yes" if route.auth_required else "no",
        " ".join(route.roles) or None,
        route.timeout_s,
        "yes" if route.enabled else "no",
    )


def _unknown(service: str, url: str) -> Failed:
    found = Service.objects.filter(name=service).first()
    if found is None:
        known = ", ".join(Service.objects.values_list("name", flat=True)[:10]) or "none yet"
        return Failed(f"there is no service {service!r}", hint=f"Known services: {known}.")
    known = ", ".join(found.targets.values_list("url", flat=True)[:10]) or "none yet"
    return Failed(f"the service {service} has no target {url!r}", hint=f"Its targets: {known}.")
