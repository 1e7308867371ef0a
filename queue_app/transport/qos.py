"""Which messages a channel holds: its window, their acknowledgement, renewal and way back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from kombu.transport import redis as base
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from . import parking
from .envelope import DEATHS, TakenBackTooOften, count_death, mark_redelivered

log = logging.getLogger(__name__)

_CHUNK = 500  # tags in one command


class QoS(base.QoS):
    _delivered: Any
    _dirty: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag in self.channel.held:  # the claim has put it into `unacked`
            virtual.QoS.append(self, message, delivery_tag)
        else:  # a fanout message
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        self._let_go(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.channel.held.pop(delivery_tag, None)
            super().reject(delivery_tag, requeue=True)
        else:
            self._let_go(delivery_tag)

    def _let_go(self, tag: str) -> None:
        virtual.QoS.ack(self, tag)
        self.channel.held.pop(tag, None)
        self.channel.acks.add([tag])

    def can_consume(self) -> bool:
        """Refill when half the window is free; for less only when no ack is about to free more.

        So fast tasks are claimed in batches, and a slow one never leaves a slot idle.
        """
        if not self.prefetch_count or self.channel.claiming:
            return True
        free = self.can_consume_max_estimate()
        if free and self.channel.waiting:
            return True
        return bool(free >= max(1, self.prefetch_count // 2) or (free and not self.channel.acks))

    def renew(self) -> None:
        """Claim what we hold anew, so that a task may take longer than the visibility timeout.

        XX: what was acknowledged or restored meanwhile stays gone.
        """
        tags = [tag for tag in list(self._delivered) if tag not in self._dirty]
        with self.channel.conn_or_acquire() as client:
            now = _server_time(client)
            with client.pipeline(transaction=False) as pipe:
                for start in range(0, len(tags), _CHUNK):
                    pipe.zadd(
                        self.unacked_index_key, dict.fromkeys(tags[start : start + _CHUNK], now), xx=True
                    )
                pipe.execute()

    def give_back(self, tags: Iterable[str]) -> None:
        """Put back what was delivered and has not begun, the first one next in line: no consumer's death is counted."""
        held, delivered = self.channel.held, self._delivered
        ours = [tag for tag in tags if tag in held and tag in delivered and tag not in self._dirty]
        self.channel.give_back(held[tag]._replace(raw=dumps(delivered[tag]._raw)) for tag in ours)
        for tag in ours:
            del held[tag], delivered[tag]

    def restore_unacked(self, client: Any = None) -> None:
        """Give back all that was delivered and is not acknowledged, in the order in which it came."""
        held = self.channel.held
        self._flush()
        try:
            ours = [
                (held.pop(tag), self._delivered[tag]._raw) for tag in list(self._delivered) if tag in held
            ]
            for _, envelope in ours:
                mark_redelivered(envelope)
            self.channel.give_back(claimed._replace(raw=dumps(envelope)) for claimed, envelope in ours)
            for claimed, _ in ours:
                # Another worker may hold it by now: the other way back must not see it.
                del self._delivered[claimed.tag]
            super().restore_unacked(client)
        finally:
            self._delivered.clear()  # what the server did not hear of returns with the visibility timeout

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 1) -> None:
        """Put back whatever was claimed longer than the visibility timeout ago; one process at a time.

        By the server's clock, as our claims are: a host whose clock is wrong restores nothing too early.
        """
        with self.channel.conn_or_acquire() as client:
            try:
                with base.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    oldest = _server_time(client) - self.visibility_timeout
                    expired = client.zrange(
                        self.unacked_index_key,
                        oldest,
                        0,
                        desc=True,
                        byscore=True,
                        offset=num and start,
                        num=num,
                    )
                    for tag in expired or []:
                        self._take_back(bytes_to_str(tag), client)
            except base.MutexHeld:
                pass

    def _take_back(self, tag: str, client: Any) -> None:
        """restore_by_tag(), and the death of its consumer is counted in the same transaction."""

        def transact(pipe: Any) -> None:
            entry = pipe.hget(self.unacked_key, tag)
            pipe.multi()
            self._remove_from_indices(tag, pipe)
            if entry:
                envelope, exchange, routing_key = loads(bytes_to_str(entry))
                _take_back(self.channel, envelope, exchange, routing_key, pipe)

        try:
            client.transaction(transact, self.unacked_key)
        except TakenBackTooOften as error:
            parking.give_up(self.channel, tag, error)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            parking.park_unacked(self.channel, tag, error)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            parking.park_unacked(self.channel, tag, error)


def _take_back(channel: Any, payload: Any, exchange: str, routing_key: str, pipe: Any) -> None:
    """From a consumer that is dead. Raises TakenBackTooOften, with nothing done."""
    deaths = count_death(payload)
    if 0 <= channel.delivery_limit < deaths:
        del payload["properties"][DEATHS]  # whoever puts it back means it
        raise TakenBackTooOften(routing_key, deaths, payload)
    channel._do_restore_message(payload, exchange, routing_key, pipe)


def _server_time(client: Any) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + microseconds / 1e6
