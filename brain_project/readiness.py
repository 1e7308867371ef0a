"""Is everything up? One probe for each door of the platform, asked from outside like any client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Probe:
    """name: the child that answers it."""

    name: str
    answers: Callable[[], bool]


def probes(state: dict[str, Any]) -> list[Probe]:
    """For up.json's `state`. The site's /readyz covers database, Redis and broker, and counts the workers."""
    site, edge = state["site"], state["edge"]
    found = [
        Probe("web", lambda: _ok(f"{site}/readyz")),
        Probe("edge", lambda: _ok(f"{edge}/gateway/health")),
        Probe("worker", lambda: _has_worker(f"{site}/readyz")),
    ]
    if state.get("demo"):
        found.append(
            Probe("tasks", lambda: all(_ok(f"{target}/healthz") for target in state["demo"]["targets"]))
        )
    return found


def _ok(url: str) -> bool:
    return _fetch(url) is not None


def _has_worker(url: str) -> bool:
    body = _fetch(url)
    return body is not None and json.loads(body)["workers"] > 0


def _fetch(url: str) -> bytes | None:
    """The body of a 200, else None."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  (our own http URL)
            return bytes(answer.read()) if answer.status == 200 else None
    except (urllib.error.URLError, OSError):
        return None
