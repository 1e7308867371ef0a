"""Takes tokens where all processes count together: one script on Redis, by the server's clock.

    atake, ask     on an event loop, with leases: most requests are paid by `Account.spend` and never come here
    take           from threads, one script a request

The calls of one loop leave together: while one batch is under way, the accounts that need the store gather for
the next, and each account asks once for all of its requests that wait (its lease, what it hands back, and they).

When the store does not answer, the plan's policy decides: "local" (each process counts for itself), "allow"
or "deny".
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
from hiredis import pack_command
from redis.exceptions import NoScriptError, RedisError

from cache_app import connections as store
from cache_app.line import Line

from .accounts import LEASE_S, Account, Accounts
from .bucket import Ask, Limit, Taken
from .conf import conf
from .local_buckets import LocalBuckets

log = structlog.get_logger(__name__)

SCRIPT = Path(__file__).with_name("token_bucket.lua").read_text()
PREFIX = "brain:limit:"
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis' own name for the script
_SWEEP_S = LEASE_S / 4  # how late an unspent lease may be on its way back

Answer = Callable[[Taken], None]


class Waiter:
    """A request that waits for the store. `cancel` when its client is gone: what was meant for it serves others."""

    __slots__ = ("answer", "cost")

    def __init__(self, cost: float, answer: Answer) -> None:
        self.cost = cost
        self.answer: Answer | None = answer

    def cancel(self) -> None:
        self.answer = None


class Flight:
    """One batch: what was asked for whom, at `sent`, for how many waiters each. replies: the first ones, where some of
    them say that the store does not know the script; what got such a one is sent again."""

    __slots__ = ("asks", "counts", "due", "replies", "sent", "timer")

    def __init__(self, due: list[Account], sent: float) -> None:
        self.due, self.sent = due, sent
        self.asks: list[Ask] = []
        self.counts: list[int] = []
        self.replies: list[Any] = []
        self.timer: asyncio.TimerHandle | None = None


class Limiter:
    """One a process, or one an event loop: `ask`, `atake`, `give_back` and `aclose` belong to one loop."""

    def __init__(
        self, *, prefix: str = PREFIX, nodes: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.accounts = Accounts(self._call, nodes=nodes)
        self.on_failure: Callable[[], None] | None = None  # told when the store does not answer
        self._prefix, self._clock = prefix, clock
        self._local = LocalBuckets()
        self._down_until = 0.0  # a store that failed is not waited for by every request; 0.0: it is there
        self._due: list[Account] = []
        self._line: Line | None = None
        self._flight: Flight | None = None
        self._is_leaving = False  # the next batch is about to
        self._sending: asyncio.Task[None] | None = None  # what has to wait before it can be sent
        self._landed: asyncio.Event | None = None  # no batch is under way
        self._leased: set[Account] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    # --- on an event loop ---

    def ask(self, account: Account, cost: float, answer: Answer) -> Waiter:
        """`answer` is called once, unless the waiter is cancelled: before this returns when the store is down."""
        waiter = Waiter(cost, answer)
        if self._is_down():
            answer(self._without_store(account, cost))
        else:
            account.waiting.append(waiter)
            self._call(account)
        return waiter

    async def atake(self, account: Account, cost: float = 1.0) -> Taken:
        told: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()

        def answer(taken: Taken) -> None:
            if told.cancelled():  # and the request does not know yet
                self.give_back(account, taken)
            else:
                told.set_result(taken)

        waiter = self.ask(account, cost, answer)
        try:
            return await told
        except asyncio.CancelledError:
            waiter.cancel()
            if told.done() and not told.cancelled():
                self.give_back(account, told.result())
            raise

    def give_back(self, account: Account, taken: Taken) -> None:
        """For a request that went away before it was served. What nobody counted is not given back either."""
        if not taken.granted:
            return
        account.put_back(taken.granted)
        self._watch(account)
        if account.surplus():
            self._call(account)

    async def aclose(self) -> None:
        """Hand all leases back. What is asked for afterwards is counted exactly."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for account in self._leased:
            account.close()
            if account.left > 0.0:
                self._call(account)
        self._leased.clear()
        if self._flight is not None or self._is_leaving:
            self._landed = asyncio.Event()
            await self._landed.wait()
        if self._line is not None:
            self._line.close()

    def _call(self, account: Account) -> None:
        if account.asking:
            return
        account.asking = True
        self._due.append(account)
        if self._flight is None and not self._is_leaving:
            self._is_leaving = True
            asyncio.get_running_loop().call_soon(self._leave)

    def _leave(self) -> None:
        """Send what has gathered, in one batch."""
        self._is_leaving = False
        due, self._due = self._due, []
        self._flight = flight = Flight(due, self._clock())
        flight.timer = asyncio.get_running_loop().call_later(
            conf().LIMITER_TIMEOUT_S, self._fail, flight, TimeoutError()
        )
        try:
            for account in due:
                if account.waiting:
                    account.waiting = deque(waiter for waiter in account.waiting if waiter.answer is not None)
                flight.counts.append(len(account.waiting))
                costs = [waiter.cost for waiter in account.waiting]
                flight.asks.append(account.ask(flight.sent, costs))
            self._send(flight)
        except Exception as error:  # noqa: BLE001  (whatever it is, requests wait for an answer)
            self._fail(flight, error)

    def _send(self, flight: Flight) -> None:
        line = self._line
        if line is not None and line.is_open:
            packed = [
                self._packed(account, asked) for account, asked in zip(flight.due, flight.asks, strict=True)
            ]
            line.send(
                b"".join(packed), len(packed), lambda replies, error: self._heard(flight, replies, error)
            )
        else:
            self._sending = asyncio.get_running_loop().create_task(self._send_later(flight))

    async def _send_later(self, flight: Flight) -> None:
        """By a new line; by the links to its nodes, if it is a cluster."""
        try:
            line = store.aline()
            if line is None:
                commands = [
                    self._command(account, asked)
                    for account, asked in zip(flight.due, flight.asks, strict=True)
                ]
                self._heard(flight, await store.alink(store.default_url()).pipeline(commands), None)
                return
            await line.dial()
            if self._flight is flight:
                self._line = line
                self._send(flight)
            else:
                line.close()
        except Exception as error:  # noqa: BLE001
            self._fail(flight, error)

    def _heard(self, flight: Flight, replies: list[Any], error: Exception | None) -> None:
        if self._flight is not flight:
            return
        if error is not None:
            self._fail(flight, error)
            return
        if flight.replies:  # of those that were sent again
            left = iter(replies)
            replies = [next(left) if isinstance(known, NoScriptError) else known for known in flight.replies]
        elif any(isinstance(reply, NoScriptError) for reply in replies):
            flight.replies = replies
            self._sending = asyncio.get_running_loop().create_task(self._send_again(flight))
            return
        broken = next((reply for reply in replies if isinstance(reply, Exception)), None)
        try:
            taken = [] if broken is not None else [_taken(reply) for reply in replies]
        except (TypeError, ValueError, IndexError) as odd:
            broken = odd
        if broken is not None:
            self._fail(flight, broken)
        else:
            self._land(flight, taken)

    async def _send_again(self, flight: Flight) -> None:
        """With the script's text, which the store knows from now on. What did run is not sent twice."""
        pairs = zip(flight.due, flight.asks, flight.replies, strict=True)
        commands = [
            ("EVAL", SCRIPT, *self._command(account, asked)[2:])
            for account, asked, reply in pairs
            if isinstance(reply, NoScriptError)
        ]
        try:
            if self._line is None:
                self._heard(flight, await store.alink(store.default_url()).pipeline(commands), None)
            else:
                packed = b"".join([pack_command(command) for command in commands])
                self._line.send(
                    packed, len(commands), lambda replies, error: self._heard(flight, replies, error)
                )
        except Exception as error:  # noqa: BLE001
            self._fail(flight, error)

    def _land(self, flight: Flight, taken: list[Taken]) -> None:
        self._over(flight)
        self._is_up()
        for account, asked, told, count in zip(flight.due, flight.asks, taken, flight.counts, strict=True):
            account.granted(asked, told, flight.sent)
            account.asking = False
            self._serve(account, count)
        self._go_on()

    def _fail(self, flight: Flight, error: Exception) -> None:
        if self._flight is not flight:
            return
        self._over(flight)
        if self._line is not None:
            self._line.close()  # whatever it still says belongs to nobody
            self._line = None
        if self._sending is not None and self._sending is not asyncio.current_task():
            self._sending.cancel()
        self._went_down(error)
        late, self._due = self._due, []
        for account in [*flight.due, *late]:  # those that came meanwhile need not find out for themselves
            account.asking = False
            self._answer_without_store(account)
        self._go_on()

    def _over(self, flight: Flight) -> None:
        self._flight = None
        if flight.timer is not None:
            flight.timer.cancel()

    def _go_on(self) -> None:
        if self._due and self._flight is None and not self._is_leaving:
            self._leave()
        elif self._landed is not None and self._flight is None and not self._is_leaving:
            self._landed.set()

    def _packed(self, account: Account, asked: Ask) -> bytes:
        """What is asked alike again and again, as without leases, is packed once."""
        if account.packed is None or account.packed[0] != asked:
            account.packed = asked, pack_command(self._command(account, asked))
        packed: bytes = account.packed[1]
        return packed

    def _command(self, account: Account, asked: Ask) -> tuple[Any, ...]:
        keys = self._keys(account)
        return ("EVALSHA", _SHA, str(len(keys)), *keys, *map(repr, asked), *_rates(account.limits))

    def _keys(self, account: Account) -> list[str]:
        keys = [limit.key for limit in account.limits]
        if account.owner and store.link(store.default_url()).is_cluster:
            # One script runs on one node: there, an owner has a bucket of its own for each address that it comes from.
            tag = f"{{{account.owner}}}"
            keys = [
                key if key.startswith(tag) else tag + key.replace("{", "").replace("}", "") for key in keys
            ]
        return [self._prefix + key for key in keys]

    def _serve(self, account: Account, asked: int) -> None:
        """In the order in which they came. The first `asked` of them were asked for: what they did not get, they
        are refused, or they would pile up faster than a busy bucket fills. The others came later."""
        now, waiting = self._clock(), account.waiting
        while waiting:
            waiter = waiting[0]
            if waiter.answer is None or account.pay(waiter.cost):
                taken = Taken(True, account.levels_now(), waiter.cost)
            elif asked > 0 or account.refuses(now, waiter.cost):
                taken = Taken(False, account.levels_now())
            else:
                break
            asked -= 1
            waiting.popleft()
            _tell(waiter, taken)
        if self._closed:
            account.close()
        if account.left > 0.0 and not self._closed:
            self._watch(account)
        if waiting or account.surplus():
            self._call(account)

    def _watch(self, account: Account) -> None:
        self._leased.add(account)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Hand back what is not spent in time, and forget the accounts that hold nothing."""
        now = self._clock()
        self._sweeper = None
        for account in [account for account in self._leased if not now < account.ends]:
            self._leased.discard(account)
            if account.is_over(now):
                self._call(account)
        if self._leased:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    # --- from threads ---

    def take(self, account: Account, cost: float = 1.0) -> Taken:
        if not self._is_down():
            sent = self._clock()
            try:
                link, command = store.link(store.default_url()), self._command(account, Ask(cost, cost))
                try:
                    reply = link.call(*command)
                except NoScriptError:
                    reply = link.call("EVAL", SCRIPT, *command[2:])
            except (RedisError, OSError) as error:
                self._went_down(error)
            else:
                self._is_up()
                taken = _taken(reply)
                account.told(taken, sent, cost)
                return taken
        return self._without_store(account, cost)

    # --- without the store ---

    @property
    def is_store_up(self) -> bool:
        return not self._down_until

    def _is_down(self) -> bool:
        if not self._down_until:
            return False
        now = self._clock()
        if now < self._down_until:
            return True
        # This request goes and looks; the others do not wait for what it finds.
        self._down_until = now + conf().LIMITER_RETRY_S
        return False

    def _went_down(self, error: Exception) -> None:
        if not self._down_until:
            known = isinstance(error, RedisError | OSError)  # TimeoutError is an OSError
            log.warning(
                "limiter_store_down",
                error=type(error).__name__,
                retry_s=conf().LIMITER_RETRY_S,
                exc_info=None if known else error,
            )
        self._down_until = self._clock() + conf().LIMITER_RETRY_S
        if self.on_failure is not None:
            self.on_failure()

    def _is_up(self) -> None:
        if self._down_until:
            self._down_until = 0.0
            log.info("limiter_store_up")

    def _answer_without_store(self, account: Account) -> None:
        waiting = account.waiting
        while waiting:
            waiter = waiting.popleft()
            if waiter.answer is not None:
                _tell(waiter, self._without_store(account, waiter.cost))

    def _without_store(self, account: Account, cost: float) -> Taken:
        policy = account.on_store_down or conf().LIMITER_ON_STORE_DOWN
        if policy == "local":
            counted = self._local.take(account.limits, self._clock(), cost)
            taken = Taken(counted.admitted, counted.levels)
        else:
            taken = Taken(policy == "allow")
        account.levels = taken.levels
        return taken


def _tell(waiter: Waiter, taken: Taken) -> None:
    answer = waiter.answer
    waiter.answer = None
    if answer is None:
        return
    try:
        answer(taken)
    except Exception:  # one request's trouble must not keep the others waiting
        log.exception("limiter_answer_failed")


def _rates(limits: Sequence[Limit]) -> list[str]:
    return [repr(part) for limit in limits for part in (limit.rate, limit.capacity)]


def _taken(reply: Any) -> Taken:
    return Taken(reply[0] == 1, tuple(float(level) for level in reply[3:]), float(reply[1]), int(reply[2]))
