from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings

from cache_app import seldom

GONE = "unix:///nonexistent/valkey.sock?db=0"


@pytest.fixture(autouse=True)
def own_prefix(settings: LazySettings, prefix: str) -> Iterator[str]:
    """The default cache of this test keeps its keys to itself, and has nothing logged yet."""
    settings.CACHES = {"default": settings.CACHES["default"] | {"KEY_PREFIX": prefix.strip(":")}}
    seldom.forget()
    return prefix.strip(":")


@pytest.fixture
def redis_down(settings: LazySettings, own_prefix: str) -> dict[str, Any]:
    """The default cache points at a socket that nobody listens on."""
    settings.CACHES = {"default": settings.CACHES["default"] | {"LOCATION": GONE}}
    return settings.CACHES


@pytest.fixture
def raising(settings: LazySettings) -> None:
    settings.BRAIN = settings.BRAIN | {"CACHE": {"ON_STORE_DOWN": "raise"}}


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    if request.param == "sync":
        yield None
        return
    with asyncio.Runner() as runner:
        yield runner
