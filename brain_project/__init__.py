"""The site: settings, urls, admin, the embedded services. The roof; nothing imports it."""

from __future__ import annotations

from .celery import app as celery_app

__all__ = ["celery_app"]
