"""The gateway's admin pages, and a configuration to look at."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

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

TRACE: dict[str, Any] = {"actor": "tester", "source": "cli"}
CONFIRMED = {"_form_submitted": "True"}
SECRET = "0123456789abcdef0123456789abcdef"
NAMES = (
    "route", "service", "target", "transform", "plan", "consumer", "apikey", "jwtissuer", "revokedtoken", "tokencut",
    "revision",
)  # fmt: skip


def page(name: str, row: Any = None, verb: str = "change") -> str:
    """Of a row, or the list of all."""
    if row is None:
        return reverse(f"admin:gateway_{name}_changelist")
    return reverse(f"admin:gateway_{name}_{verb}", args=[row.pk])


def save(row: Any) -> Any:
    changes.save(row, **TRACE)
    return row


def configuration(suffix: str = "") -> dict[str, Any]:
    """One of each, by the names of NAMES."""
    plan = save(Plan(name=f"gold{suffix}", requests_per_minute=600, burst_limit=50))
    service = save(Service(name=f"billing{suffix}"))
    target = save(Target(service=service, url="http://127.0.0.1:9101"))
    route = save(
        Route(
            name=f"invoices{suffix}", path=f"/invoices{suffix}", service=service, plan=plan, methods=["GET"]
        )
    )
    transform = save(
        Transform(name=f"team{suffix}", route=route, request={"headers": {"set": {"X-Team": "a"}}})
    )
    consumer = save(Consumer(name=f"robot{suffix}", roles=["operator"], scopes=["read", "write"], plan=plan))
    key, _ = changes.issue_key(consumer, **TRACE)
    issuer = JwtIssuer(name=f"own{suffix}")
    changes.set_secret(issuer, SECRET)
    save(issuer)
    revoked = RevokedToken.objects.create(issuer=issuer.name, jti=f"j{suffix}", expires_at=key.created_at)
    cut = TokenCut.objects.create(
        issuer=issuer.name, subject=f"s{suffix}", issued_until=key.created_at, expires_at=key.created_at
    )
    return {
        "plan": plan, "service": service, "target": target, "route": route, "transform": transform,
        "consumer": consumer, "apikey": key, "jwtissuer": issuer, "revokedtoken": revoked, "tokencut": cut,
    }  # fmt: skip


def living() -> list[ApiKey]:
    return list(ApiKey.objects.filter(revoked_at=None).order_by("pk"))
