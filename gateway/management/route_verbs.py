"""`manage.py gateway routes`, `gateway status`, `gateway test` and `gateway target on|off|drain`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from foundation.commands import DEGRADED, FAILED, USAGE, BrainCommand, Failed
from gateway import board, changes, tester
from gateway.holder import Holder
from gateway.models import Route, Service, Target
from gateway.snapshot import Snapshot

_EXAMPLE = "Such as: manage.py gateway test GET /api/v1/tasks --header 'Accept: text/html' --consumer NAME"
_SIGNS = {"ok": "+", "refused": "x", "skipped": "-"}
_STYLES = {"x": "red", "+": "green"}
_STATES = {"on": "active", "off": "off", "drain": "draining"}


class RouteVerbs:
    """trace: who acts, for the audit log."""

    def __init__(self, command: BrainCommand, trace: Callable[[], dict[str, Any]]) -> None:
        self._command, self._trace = command, trace

    def define(self) -> None:
        self._command.verb("routes", self.routes, "The routes as a table.")
        self._command.verb(
            "status",
            self.status,
            "The configuration as an edge would load it now. Exit code 3: something of it cannot be used.",
        )
        target = self._command.verb(
            "target", self.target, "Turn a target of a service on or off, or drain it."
        )
        target.add_argument(
            "action", choices=list(_STATES), help="drain: requests under way end, no new ones"
        )
        target.add_argument("service")
        target.add_argument("url", help="as the service has it")

        tested = self._command.verb(
            "test",
            self.test,
            "What would become of a request, and why; nothing is sent. Exit code 1: it would be refused.",
        )
        tested.add_argument("method", help="GET, POST, …")
        tested.add_argument("url", help="a path, or a whole URL, whose host then counts")
        tested.add_argument(
            "--header", action="append", default=[], metavar="NAME:VALUE", help="as often as need be"
        )
        tested.add_argument(
            "--consumer", metavar="NAME", help="who calls, instead of a credential in a header"
        )
        tested.add_argument(
            "--client-ip", default="127.0.0.1", metavar="IP", help="where from (default 127.0.0.1)"
        )

    def test(
        self,
        *,
        method: str,
        url: str,
        header: list[str],
        consumer: str | None,
        client_ip: str,
        **options: Any,
    ) -> int | None:
        headers = [_header(one) for one in header]
        try:
            found = tester.explain(_snapshot(), method, url, headers, client_ip, consumer, board.read())
        except ValueError as error:
            raise Failed(str(error), hint=_EXAMPLE, code=USAGE) from error
        self._command.document(asdict(found))
        for line in _lines(found):
            self._command.line(line, style=_STYLES.get(line[:1], ""))
        return FAILED if found.status is not None else None

    def routes(self, **options: Any) -> None:
        found = Route.objects.select_related("service", "plan").prefetch_related("service__targets")
        columns = (
            "name", "path", "kind", "hosts", "methods", "service", "targets", "plan", "auth", "roles", "timeout_s",
            "enabled",
        )  # fmt: skip
        self._command.table(columns, [_row(route) for route in found])

    def status(self, **options: Any) -> int | None:
        snapshot = _snapshot()
        facts = {
            "version": snapshot.version,
            "routes": len(snapshot.routes),
            "targets": len(snapshot.targets),
            "api_keys": len(snapshot.keys),
            "issuers": [issuer.name for issuer in snapshot.issuers],
        }
        outages = [asdict(one) for one in snapshot.outages]
        for name, value in facts.items():
            shown = " ".join(value) if isinstance(value, list) else value
            self._command.line(f"{name.replace('_', ' '):<9} {shown}")
        for one in snapshot.outages:
            self._command.line(f"x {one.kind} {one.name} is out of service ({one.code}): {one.reason}", "red")
        self._command.document({**facts, "out_of_service": outages})
        return DEGRADED if outages else None

    def target(self, *, action: str, service: str, url: str, **options: Any) -> None:
        row = Target.objects.select_related("service").filter(service__name=service, url=url).first()
        if row is None:
            raise _unknown(service, url)
        was, state = row.state, _STATES[action]
        changes.set_target_state(row, state, **self._trace())
        told = f"was {state} already" if was == state else f"{was} -> {state}"
        self._command.line(f"{service} {url}: {told}")
        self._command.document({"service": service, "url": url, "before": was, "state": state})


def _snapshot() -> Snapshot:
    """As an edge would load it now. Raises Failed."""
    holder, log = Holder(), logging.getLogger("gateway.holder")
    level = log.level
    log.setLevel(logging.WARNING)  # that it was loaded is no news here
    try:
        holder.refresh()
    finally:
        log.setLevel(level)
    if holder.snapshot.version < 0:
        hint = "The lines above say why; `manage.py check --database default` may know more."
        raise Failed("the configuration cannot be loaded", hint=hint)
    return holder.snapshot


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise Failed(
            f"--header {name}: has no colon", hint="Write it as --header 'Accept: text/html'.", code=USAGE
        )
    return name.strip(), value.strip()


def _lines(found: tester.Explanation) -> Iterator[str]:
    for step in found.steps:
        yield f"{_SIGNS[step.result]} {step.rule:<13} {step.why}"
    for heading, told in (
        ("limits", found.plan),
        ("targets", [f"{name}  {why}".rstrip() for name, why in found.targets]),
        ("other routes", [f"{name}: {why}" for name, why in found.others]),
    ):
        if told:
            yield f"{heading}:"
            yield from (f"    {one}" for one in told)
    yield f"=> {found.verdict}"


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
