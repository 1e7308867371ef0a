"""What one subject may still do on one route, as far as this process knows: tokens it holds, and when to ask
for more.

    spend     True: paid from the lease. False: the store said that this cannot be paid yet. None: ask the limiter
    ask       what to ask the store now: what this request needs, a lease that fits the pace, what is handed back
    granted   takes in the store's answer

Everything is counted in `now`, the caller's monotonic seconds; wall clocks play no part, and the store's clock
alone decides what a bucket holds. A lease is spent within LEASE_S of the moment it was *asked for*, long before
bucket.HOLD_US has passed in the store.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import bucket
from .bucket import Ask, Limit, Taken

LEASE_S = 0.2  # from the asking; what is unspent by then goes back
LEASED_RATE_S = 0.05  # a lease is at most what the limit allows in this time,
LEASED_SHARE = 0.05  # and at most this share of the capacity, divided by the nodes
AHEAD = 0.25  # of a lease: with less than this left, the next one is asked for while requests go on
REFUSAL_S = 0.2  # a refusal is repeated without asking for so long at most: others may hand tokens back
MAX_ACCOUNTS = 10_000
_MIN_PACE_S = 0.001  # two calls in one tick say nothing about the pace
_DUST = 1e-6  # fractions left over by float subtraction are not worth a call
_NEVER = float("-inf")  # a monotonic clock may start anywhere

Hook = Callable[["Account"], None]


class Account:
    """Made by `Accounts.of`. levels: as last told by the store; empty: nobody counted.

    asking, waiting, packed: the limiter's, which asks for one account once at a time.
    """

    __slots__ = (
        "_base", "_book", "_held", "_low", "_most_capacity", "_most_rate", "_policy_line", "_refused_cost",
        "_refused_until", "_renew_at", "_sent", "_template", "_told", "asking", "ends", "exact", "granted_us", "left",
        "levels", "limits", "on_store_down", "own_source", "owner", "packed", "route_source", "waiting",
    )  # fmt: skip

    def __init__(self, book: Accounts, limits: tuple[Limit, ...], on_store_down: str, *, exact: bool) -> None:
        self._book, self.limits, self.on_store_down, self.exact = book, limits, on_store_down, exact
        self.route_source: tuple[Limit, ...] = ()
        self.own_source: tuple[Limit, ...] = ()
        self.owner = ""  # as `Accounts.of` was told
        self.left = 0.0  # tokens in hand
        self.ends = _NEVER  # when they may no longer be spent
        self.granted_us = 0
        self.levels: tuple[float, ...] = ()
        self.asking = False
        self.waiting: deque[Any] = deque()
        self.packed: Any = None
        self._held = 0.0  # those of `left` and those spent since the last call that the store counts as held
        self._base = 0.0  # what `left` would be, had nothing been spent since the last call
        self._sent = _NEVER  # the last call
        self._low = 0.0  # with less than this left, or later than `_renew_at`, the next lease is asked for
        self._renew_at = _NEVER
        self._refused_until, self._refused_cost = _NEVER, 0.0
        self._most_rate = min(limit.rate for limit in limits) * LEASED_RATE_S
        self._most_capacity = min(limit.capacity for limit in limits) * LEASED_SHARE
        self._policy_line = b"RateLimit-Policy: %b\r\n" % bucket.policy_header(limits).encode()
        self._template = self._policy_line
        self._told: tuple[float, ...] = self.levels  # those that the template was made for

    # --- paying ---

    def spend(self, now: float, cost: float = 1.0) -> bool | None:
        left = self.left - cost
        if left >= self._low and now < self._renew_at:
            self.left = left
            return True
        return self._spend_last(left, now, cost)

    def _spend_last(self, left: float, now: float, cost: float) -> bool | None:
        if left >= 0.0 and now < self.ends:
            self.left = left
            if not self.asking and (left < self._low or now >= self._renew_at):
                self._book.ahead(self)
            return True
        return False if self.refuses(now, cost) else None

    def refuses(self, now: float, cost: float) -> bool:
        return now < self._refused_until and cost >= self._refused_cost

    def pay(self, cost: float) -> bool:
        """For a request that waited for these tokens: they need not outlast the lease."""
        left = self.left - cost
        if left < 0.0:
            return False
        self.left = left
        return True

    def put_back(self, tokens: float) -> None:
        """The request that these were for is gone before it was served."""
        self.left += tokens

    # --- asking ---

    def ask(self, now: float, costs: Sequence[float] = ()) -> Ask:
        """What to send to the store now. costs: of the requests that wait, in their order. Tokens that are handed back are out of our hands from here on, even if
        the call fails: lost tokens refill, tokens that exist twice do not go away."""
        most = self.lease_most()
        target = 0.0 if self.exact else self._target(now, most)
        kept = min(self.left, self._held, target) if now < self.ends else 0.0
        back, settled = self.left - kept, self._held - kept
        self.left = self._base = self._held = kept
        self._sent, self._low, self._renew_at = now, 0.0, self.ends
        lease = max(0.0, target - kept)
        spare = 2.0 * self._book.nodes * most
        if not costs:
            return Ask(0.0, 0.0, 1.0, lease, spare, settled, back, self.granted_us)
        # The time of the last grant is there to believe a report by: without one, the same is asked again and again.
        granted_us = self.granted_us if settled or back else 0
        return Ask(costs[0], sum(costs), min(costs), lease, spare, settled, back, granted_us)

    def _target(self, now: float, most: int) -> float:
        """Twice what the pace since the last call needs; nothing for a client that comes now and then, which
        would only have its lease handed back."""
        pace_s = now - self._sent
        if pace_s >= LEASE_S:
            return 0.0
        spent = max(0.0, self._base - self.left)
        return float(min(most, int(2.0 * spent * LEASE_S / max(pace_s, _MIN_PACE_S))))

    def lease_most(self) -> int:
        """Tokens of the largest lease of this node."""
        return max(1, int(min(self._most_rate, self._most_capacity / self._book.nodes)))

    def granted(self, asked: Ask, taken: Taken, sent: float) -> None:
        """The store's answer to `asked`, which was sent at `sent`."""
        leased = max(0.0, taken.granted - asked.queue)
        self.left += taken.granted
        self._base += taken.granted
        self._held += leased
        renewed = asked.settled > 0 and taken.at_us <= asked.granted_us + bucket.REPORT_US
        if leased or (renewed and self._held > 0):
            self.ends = sent + LEASE_S
            self._renew_at = sent + LEASE_S / 2
            self._low = AHEAD * self._held
        self.told(taken, sent, asked.need)

    def told(self, taken: Taken, sent: float, cost: float) -> None:
        """Levels of the store, good for headers; and for refusals, until the cost can be there again."""
        self.levels = taken.levels
        if taken.granted:
            self.granted_us = taken.at_us
        wait_s = bucket.wait_s(self.limits, taken.levels, cost)
        self._refused_until = sent + min(wait_s, REFUSAL_S)
        self._refused_cost = cost

    def surplus(self) -> bool:
        """Tokens that no request took and no lease covers: to be handed back at once."""
        return self.left - self._held > _DUST

    def is_over(self, now: float) -> bool:
        """Tokens are left that may no longer be spent."""
        return self.left > 0.0 and now >= self.ends

    def close(self) -> None:
        """No request is served from this any more: hand back what is left with the next call."""
        self.ends = self._renew_at = _NEVER
        self.exact = True

    # --- telling the client ---

    def header_lines(self) -> bytes:
        """RateLimit-Policy and RateLimit, ready for an HTTP/1.1 head. What we hold is still the client's."""
        levels = self.levels
        if levels is not self._told:
            self._template = self._state_template(levels)
            self._told = levels
        if not levels:
            return self._template
        left = self.left
        return self._template % tuple([level + left for level in levels])

    def _state_template(self, levels: tuple[float, ...]) -> bytes:
        """All but what each request changes. Until the store tells more, `t` is less than a lease's time old."""
        if not levels:
            return self._policy_line
        items = []
        for limit, level in zip(self.limits, levels, strict=True):
            full_s = math.ceil((limit.capacity - level - self.left) / limit.rate)
            items.append(f'"{limit.name}";r=%d;t={max(0, full_s)}')
        return self._policy_line.replace(b"%", b"%%") + f"RateLimit: {', '.join(items)}\r\n".encode()

    def levels_now(self) -> tuple[float, ...]:
        return tuple(level + self.left for level in self.levels)

    def header_pairs(self) -> tuple[tuple[str, str], ...]:
        lines = self.header_lines().decode().splitlines()
        return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))

    def retry_after_s(self, cost: float = 1.0) -> int:
        if not self.levels:  # refused a moment ago; by now the store is away, and nobody counts
            return 1
        return bucket.retry_after_s(self.limits, Taken(False, self.levels), cost)


class Accounts:
    """The accounts of one process, the busy ones of them: about `size`, and half of it is kept for certain.

    nodes: processes that lease from the same buckets. ahead: called when an account should be asked for while its
    requests go on.
    """

    def __init__(self, ahead: Hook, *, size: int = MAX_ACCOUNTS, nodes: int = 1) -> None:
        self.ahead, self.nodes = ahead, nodes
        self._young: dict[tuple[str, ...], Account] = {}
        self._old: dict[tuple[str, ...], Account] = {}
        self._half = max(1, size // 2)

    def of(
        self,
        subject: str,
        route: str,
        limits: tuple[Limit, ...],
        own: tuple[Limit, ...] = (),
        on_store_down: str = "",
        exact: bool = False,
        owner: str = "",
    ) -> Account:
        """limits: the route's, counted for this subject on this route. own: the subject's, counted on all routes
        together. One of them at least. A change of either makes another account, over the same buckets.

        owner: whose `own` is, where the route counts by somebody else (an address)."""
        account = self._young.get((subject, route))
        if (
            account is not None
            and not owner
            and account.route_source is limits
            and account.own_source is own
            and account.on_store_down is on_store_down
            and account.exact is exact
        ):
            return account
        return self._find(subject, route, limits, own, on_store_down, exact, owner)

    def _find(
        self,
        subject: str,
        route: str,
        limits: tuple[Limit, ...],
        own: tuple[Limit, ...],
        policy: str,
        exact: bool,
        owner: str,
    ) -> Account:
        key = (subject, route, owner) if owner else (subject, route)
        account = self._young.get(key) or self._old.pop(key, None)
        if account is None or not self._is(account, limits, own, policy, exact):
            account = Account(self, keyed(subject, route, limits, own, owner), policy, exact=exact)
        account.route_source, account.own_source, account.owner = limits, own, owner
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = account
        return account

    @staticmethod
    def _is(
        account: Account, limits: tuple[Limit, ...], own: tuple[Limit, ...], policy: str, exact: bool
    ) -> bool:
        """A new snapshot brings equal limits in new tuples: no reason to forget what is known."""
        known = (account.route_source, account.own_source, account.on_store_down, account.exact)
        return known == (limits, own, policy, exact)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def keyed(
    subject: str, route: str, limits: Sequence[Limit], own: Sequence[Limit], owner: str = ""
) -> tuple[Limit, ...]:
    """With one {hash tag} for all buckets of one subject: a cluster keeps them on one node, so one script can take
    from all."""
    on_route = [replace(limit, key=f"{{{subject}}}:{route}:{limit.name}") for limit in limits]
    return (*on_route, *(replace(limit, key=f"{{{owner or subject}}}::{limit.name}") for limit in own))
