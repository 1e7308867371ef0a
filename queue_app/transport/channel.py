"""A channel that claims messages in batches instead of popping them; the states of its connection are in docs/transport.md.

Its polling connection carries one command at a time, and every reply comes through the event loop or drain_events():
a claim, or the wait for a wake-up token. Kombu calls either BRPOP, and so do the methods that we override.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis as base
from kombu.utils.json import dumps
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import closing, envelope, keepalive, parking, qos, server
from .acks import Acks
from .batch import PublishBatch
from .claims import Claim, Claimed
from .envelope import BadEnvelope
from .scripts import GIVE_BACK, PARKED, PARKED_COUNTS, PUBLISH

log = logging.getLogger(__name__)

_POLL_S = 1  # for a token; then look anyway, as stock publishers leave none
_NO_ANSWER = RedisConnectionError, RedisTimeoutError, OSError
_MOST_CLAIMED = 1000  # Lua's unpack() takes a few thousand values, and each message needs two


class Channel(base.Channel):
    QoS = qos.QoS
    Message = envelope.Message
    from_transport_options: Any = (
        *base.Channel.from_transport_options,
        "claim_batch",
        "ack_interval",
        "delivery_limit",
    )

    claim_batch = 64  # messages in one claim at most; the prefetch window may allow fewer
    ack_interval = 0.005  # seconds that the first acknowledgement waits for others
    # A message that was taken back from more dead consumers is parked; negative: there is no limit.
    delivery_limit = 20
    # Seconds that one who restores keeps the others out, at most. Stock Kombu's 300 keep everybody out for five minutes when
    # a worker is killed in the middle of it; two at once would do no harm, as each message is taken back in a transaction.
    unacked_mutex_expire = 5
    socket_timeout: Any = 5.0  # seconds; the polls wait for longer, but not on the socket
    socket_keepalive: Any = True
    socket_keepalive_options: Any = keepalive.OPTIONS

    _in_poll: Any = None
    _brpop_sent_at: Any = None

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self.held: dict[str, Claimed] = connection.held
        self.acks = Acks(self, connection.ack_hooks)
        self.renewed_at = monotonic()
        self._no_ack: set[str] = set()
        self._claim: Claim | None = None  # the claim in flight
        self._drained = False  # the last claim left nothing behind: wait before the next one
        self._shared_client: Any = None
        super().__init__(connection, **kwargs)

    # --- keys and clients ---------------------------------------------------------------------------------------------

    def full_key(self, name: str) -> str:
        """Kombu prefixes the commands it knows, and EVAL is not one of them."""
        return f"{self.global_keyprefix or ''}{name}"

    def wake_name(self, queue: str) -> str:
        return f"{queue}{self.sep}wake"

    def wake_key(self, queue: str) -> str:
        return self.full_key(self.wake_name(queue))

    def held_keys(self) -> tuple[str, ...]:
        names = (self.unacked_index_key, self.unacked_key, PARKED, PARKED_COUNTS)
        return tuple(map(self.full_key, names))

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Stock Kombu builds a client, with a table of all its reply parsers, for every single command."""
        if client is None:
            client = self._shared_client
            if client is None:
                client = self._shared_client = self._create_client()
        try:
            yield client
        except _NO_ANSWER:
            self._doubt()
            raise

    def _doubt(self) -> None:
        """What has happened to one connection may have happened to all: no other one is worth waiting for."""
        if self.connection is not None:
            self.connection.doubted = True
        if self._pool is not None:
            self._pool.disconnect(inuse_connections=False)

    def _disconnect_pools(self) -> None:
        self._shared_client = None
        super()._disconnect_pools()

    def _after_fork(self) -> None:
        super()._after_fork()
        self.acks.reset()
        self.held.clear()

    def running_loop(self) -> Any:
        """The event loop that will come back to this channel, or None."""
        if self._closing or not self._consumers or self.connection is None:
            return None
        return self.connection.loop

    # --- publish ------------------------------------------------------------------------------------------------------

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        return PublishBatch(self, max_size)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            batch.touch(queue)
            super()._put(queue, message, **kwargs)
            return
        step = self._get_message_priority(message, reverse=False)
        with self.conn_or_acquire() as client:
            client.eval(PUBLISH, 2, *self._publish_keys(queue, step), dumps(message))
            self._maybe_update_queues_expire(client, queue)

    def put_envelopes(self, queue: str, step: int, envelopes: Sequence[str]) -> None:
        """Publish envelopes that are written out already to a queue's priority step: in one command, all or none.

        envelopes: some thousand at most, see _MOST_CLAIMED. Past redis-py's client, whose retries and measurements take
        longer than the command; a connection that the server has closed is noticed by its pool. Raises its
        ConnectionError and TimeoutError.
        """
        with self.conn_or_acquire() as client:
            pool = client.connection_pool
            connection = pool.get_connection()
            try:
                connection.send_command("EVAL", PUBLISH, 2, *self._publish_keys(queue, step), *envelopes)
                connection.read_response()
            finally:
                pool.release(connection)

    def _publish_keys(self, queue: str, step: int) -> tuple[str, str]:
        return self.wake_key(queue), self.full_key(self._q_for_pri(queue, step))

    def _do_restore_message(
        self, payload: Any, exchange: str, routing_key: str, pipe: Any, leftmost: bool = False
    ) -> None:
        """Stock Kombu drops a message here that no queue is bound for; we raise, and it is parked."""
        queues = self._lookup(exchange, routing_key)
        if not queues:
            raise BadEnvelope(f"no queue is bound for exchange {exchange!r}, routing key {routing_key!r}")
        envelope.mark_redelivered(payload)
        step = self._get_message_priority(payload, reverse=False)
        for queue in queues:
            push = pipe.lpush if leftmost else pipe.rpush
            push(self._q_for_pri(queue, step), dumps(payload))
            pipe.eval(PUBLISH, 1, self.wake_key(queue))

    # --- consume ------------------------------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._no_ack.add if no_ack else self._no_ack.discard)(queue)
        self._drained = False  # there may be messages in a queue that has just been added
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)
        if not self.active_queues:
            # The event loop may not come back, and a worker that stops runs its last tasks for minutes.
            closing.settle(self)
            with suppress(*self.connection_errors):  # they stay for the next try
                self.acks.flush()

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> envelope.Message | None:
        claim, left = self._claim_of((queue,), 1), True
        while left:
            with self.conn_or_acquire() as client:
                reply = client.eval(*claim.arguments())
                self._maybe_update_queues_expire(client, queue)
            left = not claim.left_nothing(reply)
            for claimed in claim.messages(reply):
                try:
                    return self._got(claimed, no_ack)
                except BadEnvelope as error:
                    parking.park(self, claimed, error)
        return None

    def _got(self, claimed: Claimed, no_ack: bool) -> envelope.Message:
        message = self.Message(envelope.read(claimed.raw, claimed.tag), channel=self)
        if no_ack:
            self.acks.add([claimed.tag])
        else:
            self.held[claimed.tag] = claimed.delivered()
            self.qos.append(message, claimed.tag)
        return message

    def _claim_of(self, queues: tuple[str, ...], want: int) -> Claim:
        return Claim(
            queues=queues,
            want=want,
            # The orders `priority` and `sorted` are strict between queues as well.
            shared=type(self._queue_cycle) is round_robin_cycle,
            held_keys=self.held_keys(),
            wake_keys=tuple(map(self.wake_key, queues)),
            lists=tuple(
                self.full_key(self._q_for_pri(queue, step))
                for step in self.priority_steps
                for queue in queues
            ),
        )

    def _want(self) -> int:
        if "can_consume" in vars(self.qos):
            return 1  # Celery's worker_disable_prefetch replaces it and counts tasks that we do not see
        free = self.qos.can_consume_max_estimate()
        if free is None:  # no window; SimpleQueue.get(), which has no event loop, expects one message
            free = 1 if self.connection.loop is None else _MOST_CLAIMED
        return max(1, min(free, self.claim_batch, _MOST_CLAIMED))

    @property
    def claiming(self) -> bool:
        """A claim is in flight: its reply holds messages which nobody else can see."""
        return self._claim is not None

    @property
    def waiting(self) -> bool:
        return bool(self._in_poll) and self._claim is None

    # --- the polling connection ---------------------------------------------------------------------------------------

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = tuple(self._queue_cycle.consume(len(self.active_queues)))
        if not queues:
            return
        command: tuple[Any, ...]
        if self._drained:
            command = ("BRPOP", *map(self.wake_key, queues), timeout or self.brpop_timeout or _POLL_S)
        else:
            self._claim = self._claim_of(queues, self._want())
            command = ("EVAL", *self._claim.arguments())
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        claim = self._claim
        reply = self._read_reply(**options)
        if claim is None:
            self._drained = False
            self._brpop_start()
            raise Empty
        messages = claim.messages(reply)
        self._drained = claim.left_nothing(reply)
        if not messages:
            raise Empty  # else drain_events() would never time out
        self._deliver_claimed(messages)
        return True

    def _read_reply(self, **options: Any) -> Any:
        connection = self.client.connection
        try:
            # Never as 'BRPOP': Kombu's client would cut the key prefix off.
            return self.client.parse_response(connection, "EVAL", **options)
        except self.connection_errors:
            connection.disconnect()
            self._doubt()
            raise
        except ResponseError as error:
            if not server.is_demoted(error):
                raise
            connection.disconnect()
            raise RedisConnectionError("the server has become a replica") from error
        finally:
            self._in_poll = self._claim = None
            self._flush_brpop_reauth()

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._claim = None
            self._drained = False
        super()._on_connection_disconnect(connection)

    # --- deliver ------------------------------------------------------------------------------------------------------

    def _deliver_claimed(self, messages: deque[Claimed]) -> None:
        for queue in dict.fromkeys(claimed.queue for claimed in messages):
            self._queue_cycle.rotate(queue)
        unasked: list[str] = []
        try:
            while messages and not self._closing:
                self._deliver_one(messages.popleft(), unasked)
        finally:  # a consumer that closes the channel or raises: nobody has seen these
            self.give_back(messages)
            if unasked:
                self.acks.add(unasked)

    def _deliver_one(self, claimed: Claimed, unasked: list[str]) -> None:
        """unasked: takes the tag of a message whose consumer acknowledges nothing."""
        if claimed.queue not in self.connection._callbacks:  # cancelled while the claim was under way
            self.give_back([claimed])
            return
        try:
            payload = envelope.read(claimed.raw, claimed.tag)
            if claimed.queue in self._no_ack:
                unasked.append(claimed.tag)
            else:
                self.held[claimed.tag] = claimed.delivered()
            self.connection._deliver(payload, claimed.queue)
        except BadEnvelope as error:
            parking.park(self, claimed, error)

    def give_back(self, messages: Iterable[Claimed]) -> None:
        """Put messages back where they were claimed, the first one next in line; only what is still ours."""
        index, unacked, *_ = self.held_keys()
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for claimed in reversed(list(messages)):
                keys = index, unacked, claimed.list_key, self.wake_key(claimed.queue)
                pipe.eval(GIVE_BACK, len(keys), *keys, claimed.tag, claimed.raw)
            pipe.execute()

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        """Stock Kombu asks EXISTS, which its key prefix does not cover; an empty list does not exist either way."""
        return bool(self._size(queue))

    def _purge(self, queue: str) -> int:
        purged = super()._purge(queue)
        with self.conn_or_acquire() as client:
            client.delete(self.wake_name(queue))
        return int(purged)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        super()._delete(queue, *args, **kwargs)
        with self.conn_or_acquire() as client:
            client.delete(self.wake_name(queue))

    def close(self) -> None:
        self._closing = True
        if not self.closed:
            closing.leave(self)
        super().close()
