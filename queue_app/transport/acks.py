"""Acknowledgements on their way to the server: collected for a few milliseconds, then sent in one MULTI."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from redis.client import Pipeline
from redis.exceptions import ExecAbortError, OutOfMemoryError, ResponseError

log = logging.getLogger(__name__)

_MOST = 500  # tags in one MULTI
_ENOUGH = 64  # do not wait for more: after a kill -9 each of these tasks runs again


class AckHook(Protocol):
    """Adds commands to the transaction that acknowledges `tags`; whatever it adds happens with the acks or not at all.

    Called on whichever thread flushes, again with the same tags when the server did not answer. Must not raise, and must
    not execute the pipeline. What it returns is called once the server has its commands. The pipeline knows Kombu's key
    prefix for Kombu's commands only: prefix your own keys.
    """

    def __call__(self, pipe: Pipeline, tags: Sequence[str]) -> Callable[[], None] | None: ...


class Acks:
    """The acknowledgements of one channel. A tag is forgotten when the server has answered for it, not before."""

    def __init__(self, channel: Any, hooks: Sequence[AckHook]) -> None:
        self._channel = channel
        self._hooks = hooks
        self.reset()

    def reset(self) -> None:
        """Forget everything, as a forked child must: the acknowledgements are its parent's."""
        self._tags: deque[str] = deque()
        self._lock = threading.Lock()  # a message may be acknowledged from any thread
        self._timer_runs = False

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, tags: Iterable[str]) -> None:
        """Send them soon; at once where no event loop would come back for them."""
        self._tags.extend(tags)
        loop = self._channel.running_loop()
        if loop is None or len(self._tags) >= _ENOUGH:
            self.flush()
        elif not self._timer_runs:
            self._timer_runs = True
            loop.call_soon(loop.call_later, self._channel.ack_interval, self.flush)

    def flush(self) -> None:
        """Send all there are. On a connection error they stay, and it is raised.

        Of a channel that is closed they are dropped: the messages come back with the visibility timeout.
        """
        self._timer_runs = False
        with self._lock:
            if self._channel.connection is None:
                self._tags.clear()
            while self._tags:
                batch = [self._tags.popleft() for _ in range(min(len(self._tags), _MOST))]
                try:
                    self._send(batch)
                except BaseException:
                    self._tags.extendleft(reversed(batch))
                    raise

    def _send(self, tags: list[str]) -> None:
        try:
            self._transact(tags, self._hooks)
        except (ExecAbortError, OutOfMemoryError, ResponseError) as error:
            if not self._hooks:
                raise
            # A full server takes no event, but the acks must reach it: they are what frees it.
            log.warning("ack_hooks_refused: %s", error)
            self._transact(tags, ())

    def _transact(self, tags: list[str], hooks: Sequence[AckHook]) -> None:
        channel = self._channel
        with channel.conn_or_acquire() as client, client.pipeline() as pipe:
            pipe.zrem(channel.unacked_index_key, *tags).hdel(channel.unacked_key, *tags)
            done = [then for hook in hooks if (then := hook(pipe, tags))]
            pipe.execute()
        for then in done:
            then()
