"""The class of this platform's Celery tasks, and their requests, which tell the journal how each run goes.

    message → Request (worker's main process) → pool → on_success, on_failure, … → outcome → journal → acknowledgement

Imported before Django's app registry is ready, so it imports none of the models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from celery.app.task import Task as CeleryTask
from celery.exceptions import Ignore
from celery.worker import request as base

from queue_app.window import Window

from . import descriptions, events, topology
from .events import Event
from .journal import Journal

window = Window(1)  # of this worker process; its owner sets the slots
_journal: Journal | None = None


def tell(journal: Journal | None) -> None:
    """Where the requests of this process tell what happens; None: nowhere."""
    global _journal
    _journal = journal


def journal() -> Journal | None:
    return _journal


class Discarded(Ignore):
    """Raised by a task: nobody needs the job any more. It ends as CANCELLED."""


class Request(base.Request):
    """One message of a task. `_outcome` is told together with the acknowledgement that it leads to."""

    acknowledged: bool
    _outcome: tuple[int, Any] | None = None
    _is_told = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Celery makes a subclass for every task, whose on_success does not call ours."""
        super().__init_subclass__(**options)
        succeed = cls.on_success

        def on_success(self: Request, answer: Any, **kwargs: Any) -> Any:
            failed, shown, took_s = answer
            if not failed:
                window.observe(took_s)  # a failed one does not say
                self._outcome = (events.COMPLETED, shown)
            found = succeed(self, answer, **kwargs)
            self._tell()  # where the message had been acknowledged before the run
            return found

        cls.on_success = on_success

    # --- what happens to it; on the thread that runs it, or on the loop of a prefork pool's parent ---
    def on_accepted(self, pid: int, time_accepted: float) -> None:
        super().on_accepted(pid, time_accepted)
        if _journal is None:
            return
        event = self._event(events.STARTED)
        if self._delivery_info["redelivered"]:
            _journal.tell_now(event)  # a worker may have died of it: on record before it starts
        else:
            _journal.began(self._message.delivery_tag, event)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = descriptions.raised(exc_info)
        if isinstance(error, Ignore):
            discarded = isinstance(error, Discarded)
            self._outcome = (events.CANCELLED, "discarded") if discarded else (events.COMPLETED, None)
        else:
            self._outcome = (events.DEAD_LETTER, {"error": descriptions.error(exc_info)})
        found = super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        self._tell()
        return found

    def on_retry(self, exc_info: Any) -> None:
        retry = descriptions.raised(exc_info)
        self._outcome = (
            events.FAILED,
            {"error": descriptions.error(exc_info, retry.exc), "run_after": _when(retry.when)},
        )
        super().on_retry(exc_info)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft:
            told = {"type": "TimeLimitExceeded", "message": f"{timeout} s", "traceback": ""}
            self._outcome = (events.DEAD_LETTER, {"error": told})
        super().on_timeout(soft, timeout)
        self._tell()

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        before = self._outcome
        later = descriptions.now() + (self._task.default_retry_delay or 0)
        self._outcome = (events.FAILED, {"error": descriptions.error(exc_info), "run_after": later})
        if super()._retry_worker_lost(exc, exc_info):
            return True
        self._outcome = before
        return False

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        self._outcome = (events.CANCELLED, reason)
        super()._announce_revoked(reason, terminated, signum, expired)

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        self._is_told = True  # it is delivered again
        super()._announce_cancelled(emit_retry)

    # --- how it is told ---
    def acknowledge(self) -> None:
        if self.acknowledged:
            return
        event, journal, tag = self._end(), _journal, self._message.delivery_tag
        if event is None or journal is None:
            super().acknowledge()
        elif journal.rides:
            journal.ends_with_ack(tag, event)
            super().acknowledge()
        else:
            self.acknowledged = True
            journal.ended(tag, event, lambda: self._on_ack(base.logger, self._connection_errors))

    def reject(self, requeue: bool = False) -> None:
        if requeue:
            self._outcome, self._is_told = None, True
        elif not self.acknowledged:
            event, journal, tag = self._end(), _journal, self._message.delivery_tag
            if event is not None and journal is not None:
                (journal.ends_with_ack if journal.rides else journal.ended)(tag, event)
        super().reject(requeue)

    def _tell(self) -> None:
        event, journal = self._end(), _journal
        if event is not None and journal is not None:
            journal.ended(self._message.delivery_tag, event)

    def _end(self) -> Event | None:
        """The event of its end, once; None while there is none."""
        if self._outcome is None or self._is_told:
            return None
        self._is_told = True
        kind, told = self._outcome
        try:
            return [*self._event(kind), self.time_start, told]
        except Exception as error:  # noqa: BLE001  (a message must be acknowledged, whatever is in it)
            base.logger.error("event_not_told: %s, %s", self.id, type(error).__name__)
            return None

    def _event(self, kind: int) -> Event:
        headers = self._request_dict
        ours = headers.get(descriptions.HEADER)
        about = None if ours and ours.get("recorded") else list(descriptions.of_request(self))
        attempt = (headers.get("retries") or 0) + 1
        at = self.time_start if kind == events.STARTED else descriptions.now()
        return [kind, self.id, attempt, at, about, self._delivery_info["redelivered"]]


class Task(CeleryTask):
    """Recorded. Whether it is at-least-once (`acks_late`, our default) stays the task's own choice."""

    abstract = True
    Request = f"{__name__}:Request"

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """As Celery's. priority: 0 to 9, 9 is urgent."""
        countdown = options.get("countdown")
        if (
            countdown is not None
            and 0 < countdown < 1
            and topology.is_rabbitmq_url(self.app.conf.broker_write_url)
        ):
            options["countdown"] = 1  # Celery's delays there are whole seconds, and none is an error
        return super().apply_async(args, kwargs, *rest, **options)

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """For a retry: queue and priority are ours. Celery takes them from the broker's message, where they are mapped."""
        found = super().signature_from_request(request, *args, **options)
        ours = getattr(request or self.request, descriptions.HEADER, None)
        if ours:
            for name in ("exchange", "routing_key", "redelivered"):
                found.options.pop(name, None)
            found.options |= {name: options.get(name, ours[name]) for name in ("queue", "priority")}
            found.options["headers"] = {
                **(found.options.get("headers") or {}),
                descriptions.HEADER: {"tenant": ours.get("tenant")},
            }
        return found


def _when(when: float | datetime | None) -> float:
    """Seconds since 1970 of what a Retry says: seconds from now, or a moment."""
    if isinstance(when, datetime):
        return when.timestamp()
    return descriptions.now() + (when or 0)
