"""What can be a limit, and the words for what cannot."""

from __future__ import annotations

from typing import Any

import pytest

from queue_app import quotas
from queue_app.quotas import BadLimit


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"max_concurrency": -1}, "max_concurrency"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"tenant_concurrency": True}, "tenant_concurrency"),
        ({"max_concurrency": 1.5}, "max_concurrency"),
        ({"rate_count": -5, "rate_period_s": 1.0}, "rate_count"),
        ({"rate_count": 5}, "rate_period_s"),
        ({"rate_count": 5, "rate_period_s": 0.0}, "rate_period_s"),
        ({"rate_count": 5, "rate_period_s": float("nan")}, "rate_period_s"),
        ({"rate_period_s": 5.0}, "rate_period_s"),
        ({"tenant_rate_burst": 5}, "tenant_rate_burst"),
        ({"tenant_rate_count": 5, "tenant_rate_period_s": 1.0, "tenant_rate_burst": 0}, "tenant_rate_burst"),
        ({"weight": 1001}, "weight"),
        ({"max_concurrency": 5, "delivery": "broker"}, "max_concurrency"),
        ({"is_fair": True, "delivery": "broker"}, "is_fair"),
    ],
)
def test_check__no_limit__names_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(BadLimit, match=f"^{field} ") as caught:
        quotas.check(given)
    assert caught.value.field == field


def test_check__limits__pass() -> None:
    quotas.check({})
    quotas.check({"max_concurrency": 1, "rate_count": 100, "rate_period_s": 60, "rate_burst": 5, "weight": 3})
    quotas.check({"max_concurrency": None, "is_fair": False, "delivery": "broker"})


def test_check__zero__says_what_to_do_instead() -> None:
    with pytest.raises(BadLimit, match="pause what is to stop"):
        quotas.check({"max_concurrency": 0})
