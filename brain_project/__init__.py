"""The site: settings, urls, admin, the embedded services. The roof; nothing imports it."""

from __future__ import annotations

from typing import Any

__all__ = ["celery_app"]


def __getattr__(name: str) -> Any:
    """PEP 562: `up` supervises with the standard library alone, so importing the package does not load Celery.

    apps.py does, and thereby every process that sets Django up: `.delay()` finds the app as usual.
    """
    if name != "celery_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .celery import app

    return app
