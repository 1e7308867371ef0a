"""Our gateway's configuration document, in the format of `manage.py gateway apply`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from . import asked, credentials

SERVICE, PLAN = "upstream", "bench"
EXACT = {"requests_per_minute": 60_000_000, "burst_limit": 1_000_000, "exact": True}  # no leases


def per_second(limit: int, burst: int | None = None) -> dict[str, Any]:
    """A plan of `limit` requests a second; burst: a second's worth of them unless given."""
    return {"requests_per_minute": limit * 60, "burst_limit": burst or limit}


def document(
    ports: Sequence[int],
    plan: dict[str, Any],
    *,
    routes: int = asked.ROUTES,
    limited: int = asked.ROUTES,
) -> str:
    """`routes` routes to one service of these ports, of which the first `limited` have the plan."""
    service = {"strategy": "round_robin", "targets": [f"http://127.0.0.1:{port}" for port in ports]}
    return yaml.safe_dump(
        {
            "authentication": {
                "jwt_secret": credentials.SECRET,
                "jwt_algorithm": "HS256",
                "jwt_issuer": credentials.ISSUER,
            },
            "plans": {PLAN: plan},
            "services": {SERVICE: service},
            "routes": [_route(number, number < limited) for number in range(routes)],
        },
        sort_keys=False,
    )


def _route(number: int, is_limited: bool) -> dict[str, object]:
    route = {
        "path": asked.prefix(number),
        "service": SERVICE,
        "auth_required": True,
        "roles": [credentials.ROLE],
    }
    return route | ({"plan": PLAN} if is_limited else {})
