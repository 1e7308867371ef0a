"""Logs: structlog over the standard library, readable lines in development and JSON in production.

One line a request, when it is over, none for a probe that went well, and of a ledger job what the job says, not what
its wake-up does. BRAIN_LOG_LEVEL=DEBUG shows everything.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import structlog

# What load balancers, Prometheus and `up` ask every few seconds, on the site, the edge and the demo service.
_PROBES = {"/livez", "/readyz", "/healthz", "/metrics", "/gateway/health", "/gateway/metrics"}
# The other lines of a request, and those of a task, which django-structlog writes beside Celery's own.
_BEGINNINGS = {"request_started", "streaming_started", "streaming_finished"}
_OF_A_TASK = {"task_enqueued", "task_started", "task_succeeded"}
_CELERYS_OWN = ("celery.worker.strategy", "celery.app.trace")
_WAKE_UP = "queue_app.run"  # queue_app.wakeup.RUN; settings come before the apps
_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(*, json: bool, level: str) -> dict[str, Any]:
    """Django's LOGGING; also configures structlog so that both speak through one formatter."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            *([] if level == "DEBUG" else [news_only]),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    plain = structlog.dev.plain_traceback  # rich's shows local variables, and with them secrets
    rendering: list[Any] = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain)]
    if json:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structlog": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *rendering,
                ],
                "foreign_pre_chain": [*_SHARED, structlog.stdlib.ExtraAdder()],
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "structlog"}},
        "root": {"handlers": ["console"], "level": level},
        "loggers": {
            "django.server": {"handlers": ["console"], "level": "WARNING", "propagate": False},
            "django_structlog": {"level": level},
            "uvicorn.access": {"level": "WARNING"},
            **({} if level == "DEBUG" else dict.fromkeys(_CELERYS_OWN, {"level": "WARNING"})),
        },
    }


def news_only(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor. What went wrong is logged above INFO, and stays."""
    if method == "info" and (event["event"] in _BEGINNINGS or _is_echo(event) or _is_probe(event)):
        raise structlog.DropEvent
    return event


def _is_echo(event: MutableMapping[str, Any]) -> bool:
    """The gateway or the job says the same, and more."""
    if event["event"] == "request_finished":
        return event.get("view") == "proxy"
    return event["event"] in _OF_A_TASK and event.get("child_task_name", event.get("task")) == _WAKE_UP


def _is_probe(event: MutableMapping[str, Any]) -> bool:
    if event["event"] == "request":  # the edge's
        return event.get("path") in _PROBES
    if event["event"] == "request_finished":  # django-structlog's: "GET /readyz"
        return str(event.get("request")).partition(" ")[2].partition("?")[0] in _PROBES
    return False
