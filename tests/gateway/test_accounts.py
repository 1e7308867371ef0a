"""What a process may spend on its own, and the law that it never breaks: in no stretch of time is more let through
than the capacity and what the rate adds in that time."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gateway import bucket
from gateway.accounts import LEASE_S, Account, Accounts
from gateway.bucket import Ask, Level, Limit, Taken

FAST = (Limit("second", 400.0, 400.0, 400, 1),)
ROUTE = (bucket.per_window("minute", 60, 60, capacity=10),)
OWN = (bucket.per_window("consumer-hour", 1000, 3600),)


class Store:
    """The buckets of a fleet in virtual time. back_s: how far its clock was set back."""

    def __init__(self) -> None:
        self.levels: dict[str, Level | None] = {}
        self.back_s = 0.0

    def answer(self, limits: tuple[Limit, ...], asked: bucket.Ask, now: float) -> Taken:
        before = [self.levels.get(limit.key) for limit in limits]
        now_us = int((10_000.0 + now - self.back_s) * 1e6)
        taken, after = bucket.take(before, limits, now_us, asked)
        self.levels.update((limit.key, level) for limit, level in zip(limits, after, strict=True))
        return taken


class Node:
    """One process over a Store that answers at once. skew_s: of its clock."""

    def __init__(self, store: Store, *, nodes: int = 1, skew_s: float = 0.0) -> None:
        self.store, self.skew_s, self.calls = store, skew_s, 0
        self.accounts = Accounts(self.due, nodes=nodes)
        self.dues: list[Account] = []
        self.losing: str = ""  # the "call" or the "reply"

    def due(self, account: Account) -> None:
        self.dues.append(account)

    def request(self, account: Account, now: float, cost: float = 1.0) -> bool:
        paid = account.spend(now + self.skew_s, cost)
        if paid is None:
            paid = self.call(account, now, (cost,)) and account.pay(cost)
        self.settle(now)
        return paid

    def settle(self, now: float) -> None:
        """What the limiter does on the side: leases ahead of need, and handing back."""
        while self.dues:
            self.call(self.dues.pop(), now)

    def call(self, account: Account, now: float, costs: tuple[float, ...] = ()) -> bool:
        self.calls += 1
        mine = now + self.skew_s
        asked = account.ask(mine, costs)
        if self.losing == "call":
            return False
        taken = self.store.answer(account.limits, asked, now)
        if self.losing == "reply":
            return False
        account.granted(asked, taken, mine)
        return taken.admitted

    def sweep(self, account: Account, now: float) -> None:
        if account.is_over(now + self.skew_s):
            self.call(account, now)


def lawful(admitted: list[float], limit: Limit) -> bool:
    """Every stretch of time at once: an ideal bucket that is charged for each admission never runs dry."""
    level, last = limit.capacity, 0.0
    for at in admitted:
        level = min(limit.capacity, level + (at - last) * limit.rate) - 1
        last = at
        if level < -1e-3:
            return False
    return True


# Faults lose tokens, and tokens that were lost make room for mistakes: so without faults as well.
@pytest.mark.parametrize("faults", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_fleet__bursts_crashes_losses_and_skewed_clocks__never_lets_more_through(
    seed: int, faults: float
) -> None:
    dice = random.Random(seed)
    store, nodes = Store(), 2
    fleet = [Node(store, nodes=nodes, skew_s=dice.uniform(-50, 50)) for _ in range(nodes)]
    routes = ("/a", "/b")  # they share the subject's own bucket
    now, admitted, asked, leased = 0.0, [], 0, 0
    pace, until = 100.0, 0.0
    while now < 8.0:
        if (
            now >= until
        ):  # at a moderate pace the bucket is nearly full while leases are out: then the burst comes
            pace, until = dice.choice((50.0, 300.0, 300.0, 5000.0)), now + dice.uniform(0.1, 0.4)
        now += dice.expovariate(pace)
        at = dice.randrange(nodes)
        node = fleet[at]
        account = node.accounts.of("key:a", dice.choice(routes), (), FAST)
        node.losing = dice.choices(("", "call", "reply"), (20, faults, faults))[0]
        asked += 1
        if node.request(account, now):
            admitted.append(now)
            if dice.random() < 0.02:  # the client was gone: the place counts for somebody else
                admitted.pop()
                account.put_back(1.0)
                if account.surplus():
                    node.call(account, now)
        leased += account.left > 1
        for one in fleet:
            for route in routes:
                one.sweep(one.accounts.of("key:a", route, (), FAST), now)
        if dice.random() < 0.001 * faults:
            fleet[at] = Node(store, nodes=nodes, skew_s=dice.uniform(-50, 50))
        if dice.random() < 0.001 * faults:
            store.back_s += dice.uniform(0, 0.2)
    assert lawful(admitted, FAST[0])
    assert leased > 100
    assert sum(node.calls for node in fleet) < asked


def test_spend__steady_pace__most_requests_need_no_call_and_none_is_refused() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST)
    outcomes = [node.request(account, 1.0 + n / 300) for n in range(600)]
    assert all(outcomes)
    assert node.calls < 600 / 10


def test_spend__now_and_then__no_lease_that_would_have_to_go_back() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST)
    for n in range(10):
        assert node.request(account, 1.0 + n / 4)
        assert account.left == 0.0
    assert node.calls == 10


def test_spend__exact__every_request_is_a_call() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST, exact=True)
    assert all(node.request(account, 1.0 + n / 300) for n in range(50))
    assert node.calls == 50


def test_spend__near_empty__counted_one_by_one() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST)
    while account.levels == () or account.levels[0] > 2.0 * account.lease_most():
        assert node.request(account, 1.0)
    before = node.calls
    admitted = [node.request(account, 1.0) for _ in range(100)]
    assert node.calls - before >= 35
    assert sum(admitted) + before > 0
    assert store_level(node) == pytest.approx(0.0, abs=1e-6)


def store_level(node: Node) -> float:
    (level,) = node.store.levels.values()
    assert level is not None
    return level.tokens


def test_spend__refused__repeated_without_a_call_until_the_tokens_can_be_there() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", (Limit("a", 10.0, 1.0, 10, 1),))
    assert node.request(account, 1.0)
    assert [account.spend(1.0 + after, 1.0) for after in (0.0, 0.05, 0.0999)] == [False] * 3
    assert account.spend(1.05, 0.4) is None  # a cheaper one might be paid
    assert node.calls == 1
    assert account.spend(1.1001, 1.0) is None
    slow = node.accounts.of("key:b", "/a", (Limit("a", 0.1, 1.0, 10, 100),))
    assert node.request(slow, 1.0)
    assert slow.spend(1.19, 1.0) is False
    assert slow.spend(1.21, 1.0) is None  # others may have handed tokens back


def test_lease__not_spent_in_time__goes_back_whole() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST)
    for n in range(3):
        assert node.request(account, 1.0 + n / 1000)
    left = account.left
    assert left >= 10
    assert account.spend(1.002 + LEASE_S, 1.0) is None
    before = store_level(node)
    node.sweep(account, 1.002 + LEASE_S)
    assert account.left == 0.0
    assert before + left <= store_level(node) <= 400.0


def test_lease__over_when_the_next_request_comes__handed_back_by_its_call() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST)
    for n in range(3):
        assert node.request(account, 1.0 + n / 1000)
    left = account.left
    asked = account.ask(1.002 + LEASE_S, (1.0,))
    assert (asked.need, asked.back, account.left) == (1.0, left, 0.0)


def test_take__held_in_leases__bucket_fills_to_the_rest_until_they_are_over() -> None:
    limits = [Limit("a", 100.0, 100.0, 100, 1)]
    taken, levels = bucket.take([None], limits, 0, Ask(1.0, 1.0, 1.0, lease=9.0, spare=10.0))
    assert (taken.granted, taken.levels) == (10.0, (90.0,))
    assert levels == [Level(90.0, 0, 9.0, bucket.HOLD_US)]
    look = Ask(0.0, 0.0)
    assert bucket.take(levels, limits, bucket.HOLD_US, look)[0].levels == (91.0,)
    assert bucket.take(levels, limits, bucket.HOLD_US + 50_000, look)[0].levels == (96.0,)
    # No more than a tenth of the capacity is ever out in leases.
    assert bucket.take(levels, limits, 1_000_000, Ask(1.0, 1.0, 1.0, lease=2.0))[0].granted == 1.0


def test_take__handed_back__counted_while_the_lease_is_on_record_and_never_above_the_capacity() -> None:
    limits = [Limit("a", 100.0, 100.0, 100, 1)]
    _, levels = bucket.take([None], limits, 0, Ask(1.0, 1.0, 1.0, lease=9.0))
    at_once = Ask(0.0, 0.0, settled=9.0, back=8.0)
    assert bucket.take(levels, limits, 1000, at_once)[1] == [Level(98.1, 1000, 0.0, bucket.HOLD_US)]
    _, late = bucket.take(levels, limits, 90_000, at_once)
    assert late == [Level(100.0 - 1.0, 90_000, 0.0, bucket.HOLD_US)]
    too_late = bucket.REPORT_US + 1
    assert bucket.take(levels, limits, too_late, at_once)[1] == levels
    partly = Ask(0.0, 0.0, settled=4.0, granted_us=1000)
    _, (kept,) = bucket.take(levels, limits, 400_000, partly)
    assert kept == Level(
        91.0, 400_000, 5.0, 400_000 + bucket.HOLD_US
    )  # the rest of it is kept for another while


def test_lease__busy_then_slower__shrinks_before_it_is_over() -> None:
    node = Node(Store())
    account = node.accounts.of("key:a", "/a", FAST)
    for n in range(100):
        node.request(account, 1.0 + n / 500)
    fast = account.left
    assert account.lease_most() == 20
    for n in range(20):
        assert node.request(account, 1.2 + n / 20)
    assert account.left < fast
    assert account.left <= 6


def equal(limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    return tuple(replace(limit) for limit in limits)


def test_accounts__same_caller_and_route__one_account_while_the_limits_stay_equal() -> None:
    accounts = Accounts(lambda account: None)
    one = accounts.of("key:a", "/a", ROUTE, OWN)
    assert accounts.of("key:a", "/a", ROUTE, OWN) is one
    assert accounts.of("key:a", "/a", equal(ROUTE), equal(OWN)) is one
    assert [limit.key for limit in one.limits] == ["{key:a}:/a:minute", "{key:a}::consumer-hour"]
    others = [
        accounts.of("key:b", "/a", ROUTE, OWN),
        accounts.of("key:a", "/b", ROUTE, OWN),
        accounts.of("key:a", "/a", ROUTE),
        accounts.of("key:a", "/a", ROUTE, OWN, "deny"),
        accounts.of("key:a", "/a", ROUTE, OWN, "deny", exact=True),
        accounts.of("key:a", "/a", (bucket.per_window("minute", 61, 60),), OWN, "deny", exact=True),
    ]
    assert len({id(account) for account in (one, *others)}) == 7


def test_accounts__more_than_the_bound__busy_ones_stay() -> None:
    accounts = Accounts(lambda account: None, size=20)
    busy = accounts.of("key:busy", "/a", ROUTE)
    for n in range(1000):
        accounts.of(f"ip:{n}", "/a", ROUTE)
        assert accounts.of("key:busy", "/a", ROUTE) is busy
        assert len(accounts) <= 20


def test_lease_most__nodes__share_the_capacity() -> None:
    accounts = Accounts(lambda account: None)
    account = accounts.of("key:a", "/a", FAST)
    sizes = []
    for accounts.nodes in (1, 2, 10, 100):
        sizes.append(account.lease_most())
    assert sizes == [20, 10, 2, 1]


def test_headers__levels_and_lease__as_the_bucket_module_writes_them() -> None:
    accounts = Accounts(lambda account: None)
    account = accounts.of("key:a", "/a", ROUTE, OWN)
    assert (
        account.header_lines() == b'RateLimit-Policy: "minute";q=60;w=60, "consumer-hour";q=1000;w=3600\r\n'
    )
    account.levels = (7.7, 998.0)
    account.left = 1.0
    assert account.header_pairs() == (
        ("RateLimit-Policy", bucket.policy_header(account.limits)),
        ("RateLimit", bucket.state_header(account.limits, Taken(True, account.levels_now()))),
    )
    assert account.header_lines().endswith(b'\r\nRateLimit: "minute";r=8;t=2, "consumer-hour";r=999;t=4\r\n')
    account.levels, account.left = (0.25, 998.0), 0.0
    assert account.retry_after_s() == 1
    assert account.retry_after_s(3.0) == 3
