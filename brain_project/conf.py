"""settings.BRAIN poured down: each app's section becomes its frozen conf; what was wrong is kept for the checks."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from cache_app.conf import conf as cache
from foundation.conf import Bound, Problem, read, unknown_key
from foundation.settings import conf as foundation
from gateway.conf import conf as gateway
from orm_app.conf import conf as database
from queue_app.conf import conf as queue

SECTIONS: dict[str, Bound[Any]] = {
    bound.section: bound for bound in (foundation, gateway, cache, queue, database)
}


def bind(brain: object = None) -> list[Problem]:
    """Bind every app's conf to its section of `brain` (default: settings.BRAIN) and return the problems."""
    given = getattr(settings, "BRAIN", {}) if brain is None else brain
    if not isinstance(given, dict):
        return [Problem("type", f"BRAIN is a {type(given).__name__}, not a dict.", "Write BRAIN = {...}.")]
    problems = [unknown_key(key, "BRAIN", list(SECTIONS)) for key in given if key not in SECTIONS]
    for name, bound in SECTIONS.items():
        value, wrong = read(name, bound.shape, given.get(name, {}))
        bound.bind(value)
        problems += wrong
    return problems


def refuse_in_production() -> None:
    """What is for development and tests alone. Raises ImproperlyConfigured."""
    if getattr(settings, "PRODUCTION", False) and queue().EAGER:
        raise ImproperlyConfigured(
            "BRAIN_ENV=production takes no BRAIN['QUEUE']['EAGER']: jobs need workers (docs/checks.md#queue-e011)."
        )


def _rebind(*, setting: str, **_: object) -> None:
    if setting == "BRAIN":  # override_settings in a test
        bind()


setting_changed.connect(_rebind, dispatch_uid="brain_project.conf")
