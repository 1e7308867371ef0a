"""One of each noun of the gateway's API, and people of each role in front of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from gateway import changes
from gateway.models import (
    ApiKey,
    Consumer,
    JwtIssuer,
    Plan,
    RevokedToken,
    Route,
    Service,
    Target,
    TokenCut,
    Transform,
)

BASE = "/api/v1/gateway"
SECRET = "a secret of more than thirty-two characters"
TRACE: dict[str, Any] = {"actor": "tester", "source": "cli"}


def send(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """headers: If_Match for If-Match."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.generic(
        method, f"{BASE}/{path}", _encoded(body), content_type="application/json", headers=named
    )


def _encoded(body: Any) -> str | bytes:
    return b"" if body is None else json.dumps(body)


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The body of a refusal, after a look at what every problem has."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), (
        answer.content
    )
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


def pointers(answer: Any, status: int = 400) -> list[str]:
    return [error["pointer"] for error in problem(answer, status)["errors"]]


def names(answer: Any, field: str = "name") -> list[Any]:
    assert answer.status_code == 200, answer.content
    return [row[field] for row in answer.json()["results"]]


def service(name: str = "billing", **fields: Any) -> Service:
    row = Service(name=name, **fields)
    changes.save(row, **TRACE)
    return row


def target(of: Service, url: str = "http://127.0.0.1:9001", **fields: Any) -> Target:
    row = Target(service=of, url=url, **fields)
    changes.save(row, **TRACE)
    return row


def plan(name: str = "gold", **fields: Any) -> Plan:
    row = Plan(name=name, **({"requests_per_minute": 60} | fields))
    changes.save(row, **TRACE)
    return row


def route(to: Service, name: str = "/invoices", **fields: Any) -> Route:
    row = Route(service=to, **({"name": name, "path": name} | fields))
    changes.save(row, **TRACE)
    return row


def transform(of: Route, name: str = "stamp", **fields: Any) -> Transform:
    row = Transform(route=of, name=name, **fields)
    changes.save(row, **TRACE)
    return row


def consumer(name: str = "robot", **fields: Any) -> Consumer:
    row = Consumer(name=name, **fields)
    changes.save(row, **TRACE)
    return row


def key(of: Consumer, **fields: Any) -> ApiKey:
    return changes.issue_key(of, **fields, **TRACE)[0]


def issuer(name: str = "partner", **fields: Any) -> JwtIssuer:
    row = JwtIssuer(name=name, **fields)
    changes.set_secret(row, SECRET)
    changes.save(row, **TRACE)
    return row


def revoked(jti: str = "t-1", **fields: Any) -> RevokedToken:
    end = timezone.now() + timedelta(hours=1)
    return RevokedToken.objects.create(issuer="partner", jti=jti, expires_at=end, **fields)


def cut(subject: str = "7", **fields: Any) -> TokenCut:
    now = timezone.now()
    times = {"issued_until": now, "expires_at": now + timedelta(hours=1)}
    return TokenCut.objects.create(issuer="partner", subject=subject, **(times | fields))
