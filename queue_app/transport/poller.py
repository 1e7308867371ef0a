"""What all channels of a connection do from time to time: renew what they hold, restore what others let expire."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from kombu.transport import redis as base
from redis.exceptions import ResponseError

log = logging.getLogger(__name__)


class Poller(base.MultiChannelPoller):
    def __init__(self) -> None:
        super().__init__()
        self._restored_at = float("-inf")

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        # Without an event loop there is no timer; and Kombu restores only after a poll in which nothing at all came.
        self.renew()
        self.maybe_restore_messages()
        return super().get(callback, timeout)

    def renew(self) -> None:
        """At most every sixth of the visibility timeout, so that two may fail."""
        now = monotonic()
        for channel in list(self._channels):
            if channel._qos is not None and now - channel.renewed_at >= channel.visibility_timeout / 6:
                channel.renewed_at = now
                if channel._qos._delivered:
                    _quietly(channel._qos.renew, channel.connection_errors)

    def on_poll_init(self, poller: Any) -> None:
        self.poller = poller
        self.maybe_restore_messages()

    def maybe_restore_messages(self) -> None:
        """Every unacked_restore_interval seconds. Stock Kombu counts calls, and drain_events() may call it at any rate."""
        channel = next((channel for channel in self._channels if channel.active_queues), None)
        if channel is None or monotonic() - self._restored_at < channel.unacked_restore_interval * 0.9:
            return
        self._restored_at = monotonic()
        _quietly(
            lambda: channel.qos.restore_visible(num=channel.unacked_restore_limit), channel.connection_errors
        )


def _quietly(action: Callable[[], None], connection_errors: tuple[type[Exception], ...]) -> None:
    """The polling connection finds out by itself that the server has gone; the next round tries again.

    A server that is full, or read-only, refuses the action: consuming goes on, and on a full one that is the cure.
    """
    try:
        action()
    except connection_errors as error:
        log.debug("periodic_action_failed: %s", type(error).__name__)
    except ResponseError as error:
        log.warning("periodic_action_refused: %s", error)
