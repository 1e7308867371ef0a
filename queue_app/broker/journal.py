"""What a worker tells about its broker jobs: events on their way to the stream.

With our transport an end rides in the transaction that acknowledges its message, so that both happen or neither does.
On every other broker the end is sent first and the message acknowledged after it. The start of a run is told only when
the run takes longer than a moment: an end carries its start.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.exceptions import RedisError

from . import events, stream
from .events import Event

log = structlog.get_logger(__name__)

TELL_START_S = 0.1  # a run that lasts this long is shown as running
GATHER_S = 0.001  # what an acknowledgement waits for others, where it waits for its event
_MOST = 500  # events in one entry
_LARGEST = 10_000  # ends without their acknowledgements; more belong to connections that were lost
_RETRY_S = (0.1, 0.5, 1.0)
_JOIN_S = 5.0

Then = Callable[[], None]


class Journal:
    """The events of one worker process. rides: with acknowledgements, in our transport. worker: the id of its row."""

    def __init__(self, worker: Callable[[], str], *, rides: bool) -> None:
        self.rides = rides
        self.key = stream.KEY  # with the broker's prefix
        self.lost = 0  # events given up since the start
        self._pause_s = TELL_START_S / 2 if rides else GATHER_S
        self._worker = worker
        self._started: dict[str, tuple[float, Event]] = {}  # by delivery tag, oldest first
        self._riding: dict[str, Event] = {}
        self._loose: deque[tuple[Event, Then | None]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Again is harmless. Not before the pool has forked."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="queue-journal", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send what there is. `start` may follow."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        self._thread, self._stopping = None, False
        self._flush()

    # --- what the requests tell; on any thread ---
    def began(self, tag: str, event: Event) -> None:
        self._started[tag] = (time.monotonic(), event)
        if not self._wake.is_set():
            self._wake.set()

    def tell_now(self, event: Event) -> None:
        stream.tell([event], worker=self._worker())

    def ended(self, tag: str, event: Event, then: Then | None = None) -> None:
        """then: acknowledges the message; called when the event is in the stream, or is given up."""
        self._started.pop(tag, None)
        self._loose.append((event, then))
        self._wake.set()

    def ends_with_ack(self, tag: str, event: Event) -> None:
        """The message is about to be acknowledged through our transport."""
        self._started.pop(tag, None)
        self._riding[tag] = event

    def on_ack(self, pipe: Any, tags: Sequence[str]) -> Then | None:
        """An AckHook of our transport."""
        riding = self._riding
        told = [riding[tag] for tag in tags if tag in riding]
        if not told:
            return None
        stream.add(pipe, self.key, events.pack(self._worker(), told))

        def sent() -> None:
            for tag in tags:
                riding.pop(tag, None)

        return sent

    # --- the thread ---
    def _serve(self) -> None:
        while not self._stopping:
            self._wake.wait(TELL_START_S if self._started else None)
            self._wake.clear()
            if not self._stopping:
                time.sleep(self._pause_s)
            self._tell_starts()
            self._flush()
            if len(self._riding) > _LARGEST:
                self._give_up(len(self._riding))
                self._riding.clear()

    def _tell_starts(self) -> None:
        before = time.monotonic() - TELL_START_S
        for tag, (at, event) in list(self._started.items()):
            if at > before:
                break
            if self._started.pop(tag, None) is not None:
                self._loose.append((event, None))

    def _flush(self) -> None:
        while self._loose:
            batch = [self._loose.popleft() for _ in range(min(len(self._loose), _MOST))]
            if not self._send([event for event, _ in batch]):
                self._give_up(len(batch))
            for _, then in batch:
                if then is not None:
                    then()

    def _send(self, told: list[Event]) -> bool:
        fields = events.pack(self._worker(), told)
        for pause_s in (*_RETRY_S, None):
            try:
                with stream.client() as (client, key):
                    stream.add(client, key, fields)
                return True
            except (RedisError, OSError) as error:
                log.warning("events_not_sent", events=len(told), error=type(error).__name__)
            if pause_s is None or self._stopping:
                break
            time.sleep(pause_s)
        return False

    def _give_up(self, count: int) -> None:
        self.lost += count
        log.error("events_lost", events=count)
