"""A service and its targets as one process sees them: who may be used, who is picked, what came of it.

Not safe in threads by itself: the doors call it with their lock held, or on one event loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from . import outlier, retry
from .balancer import strategy
from .breaker import CLOSED, Breaker
from .health import UNHEALTHY, Health
from .policy import Policy as Policy

ACTIVE, DRAINING = "active", "draining"
OK, FAILED, NO_VERDICT = "ok", "failed", "no_verdict"
LEAST_RAMP = 0.1  # of its share, at the beginning of a slow start


class Target:
    """One process behind the gateway, with its state in this process. name: host:port or a unix path, as shown.

    blocked: False on the hot path, nothing to ask; True: `allows(now)` knows. since: when its slow start began
    or will begin (0.0: none). ejected_until: out for its failures in a row; unproven_until: whatever its probes say. ewma_s: latency up to the response's
    head, ewma_at: when it was measured last (0.0: never), asked_at: when two choices picked it. dial and idle
    belong to the edge: where and how to connect, and open connections. retired: no longer in the configuration,
    keep no connection. Times are monotonic seconds.
    """

    __slots__ = (
        "_state", "asked_at", "blocked", "breaker", "dial", "ejected_until", "ejections", "ewma_at", "ewma_s",
        "failures", "health", "idle", "inflight", "name", "policy", "ramp", "retired", "service", "since",
        "unproven_until", "weight",
    )  # fmt: skip

    def __init__(
        self, service: str, name: str, weight: int = 1, *, state: str = ACTIVE, dial: Any = None
    ) -> None:
        self.service, self.name, self.weight, self.dial = service, name, weight, dial
        self.policy = Policy()
        self.breaker, self.health = Breaker(), Health()
        self.inflight = self.ejections = 0
        self.failures = 0  # in a row
        self.ewma_s = self.ewma_at = self.asked_at = self.since = self.ejected_until = self.unproven_until = (
            0.0
        )
        self.ramp = 1.0
        self.idle: list[Any] = []
        self.retired = False
        self.blocked = False
        self.state = state

    def __repr__(self) -> str:
        return f"<Target {self.service}/{self.name}>"

    @property
    def state(self) -> str:
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        if state not in (ACTIVE, DRAINING):
            raise ValueError(f"{state!r} is neither {ACTIVE} nor {DRAINING}")
        self._state = state
        self.blocked = True  # until the next look

    def follow(self, policy: Policy, random: Callable[[], float]) -> None:
        """Go by this policy from now on; what is known about the target stays."""
        self.policy = policy
        self.breaker.random = random
        self.breaker.follow(policy)
        self.blocked = True

    def allows(self, now: float) -> bool:
        """Whether it may be tried now. Clears `blocked` once there is nothing left to ask."""
        if self._state != ACTIVE or self.held(now) or not self.breaker.allows(now):
            return False
        self.ramp = self._ramp(now)
        if self.ramp == 1.0:
            self.since = 0.0
            self.blocked = self.breaker.state != CLOSED
        return True

    def held(self, now: float) -> bool:
        """Whether health or an ejection keeps it out."""
        return now < self.ejected_until or self.health.state == UNHEALTHY

    def warm_up(self, now: float) -> None:
        """It comes (back) into traffic at `now`: its share grows from there."""
        self.since, self.blocked = now, True

    def probed(self, before: str, *, proof: bool, now: float) -> None:
        """`health` has changed from `before` by a probe, or stayed. proof: the probe was good, and good enough to
        end an ejection."""
        if proof and self.unproven_until <= now < self.ejected_until:
            self.ejected_until, self.failures = now, 0
            self.warm_up(now)
        if self.health.state != before:
            self.blocked = True
            if before == UNHEALTHY:  # unknown was in traffic all along
                self.warm_up(now)

    def why(self, now: float) -> str:
        """Why it gets no traffic, or less. Empty when it has its full share."""
        reasons = ["draining"] if self._state == DRAINING else []
        if now < self.ejected_until:
            times = "" if self.ejections == 1 else f" for the {self.ejections}. time"
            reasons.append(f"ejected{times} for failures in a row, for {self.ejected_until - now:.0f} s more")
        reasons += [reason for reason in (self.health.why(), self.breaker.why(now)) if reason]
        if not reasons and self.since and self._ramp(now) < 1.0:
            reasons.append(f"slow start {self._ramp(now) * 100:.0f} %")
        return "; ".join(reasons)

    def _ramp(self, now: float) -> float:
        slow_start_s = self.policy.slow_start_s
        if not self.since or now >= self.since + slow_start_s:
            return 1.0
        return max(LEAST_RAMP, (now - self.since) / slow_start_s)


class Events(Protocol):
    """Who counts what happens to targets and answers; the tally is one."""

    def untouched(self, route: str, why: str) -> None: ...
    def panicked(self, service: str) -> None: ...
    def ejected(self, service: str, target: str) -> None: ...


class Service:
    """Targets that serve the same thing, and the policies that they are used by.

    hash_on: where the caller finds the key of consistent_hash ("ip", "header:NAME", "cookie:NAME"). panicked: how
    often a target was used although health or an ejection spoke against it, because there was no other. Raises
    ValueError for an unknown strategy or place of the key.
    """

    __slots__ = (
        "_measures", "_pausing", "_propose", "_ready", "_retries", "_scans", "_strategy", "events", "hash_on", "name",
        "panicked",
        "policy", "strategy", "targets",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        targets: Iterable[Target],
        strategy_: str = "round_robin",
        *,
        random: Callable[[], float],
        policy: Policy | None = None,
        hash_on: str = "",
    ) -> None:
        self.name, self.targets, self.strategy = name, tuple(targets), strategy_
        self.policy = policy or Policy()
        self.hash_on = _place_of_key(hash_on)
        self.panicked = 0
        self.events: Events | None = None
        self._retries = self._pausing = 0  # granted and not over; of those, not yet at a target
        for target in self.targets:
            target.follow(self.policy, random)
        self._ready = tuple(target for target in self.targets if target.weight > 0)
        # A service without targets still learns whether its strategy exists.
        self._strategy = strategy(strategy_, self._ready or (Target(name, ""),), self.policy, random)
        self._scans = self._strategy.scans
        self._measures = strategy_ == "peak_ewma"
        self._propose = self._strategy.propose

    # --- the path of a request ---

    def take(self, now: float, key: bytes | None, tried: tuple[Target, ...]) -> Target | None:
        """Pick a target and count the request in; the caller then reads `target.breaker.epoch` and owes a
        `settle`. None: nobody may be tried. key: of consistent_hash. tried: not to be used again."""
        if (
            tried
        ):  # costs nobody a turn: or a target that fails would get the turns of those that stand in for it
            return self._take_with_care(None, now, key, tried)
        target: Target = self._propose(now, key)
        if target.blocked:
            return self._take_with_care(target, now, key, tried)
        if self._scans:  # it compared them, so one that is blocked may have hidden the others, or been hidden
            for one in self._ready:
                if one.blocked:
                    return self._take_with_care(target, now, key, tried)
        target.inflight += 1
        return target

    def settle(self, target: Target, epoch: int, outcome: str, latency_s: float, now: float) -> None:
        """Give back what `take` counted in. latency_s: from the request to the response's head (with FAILED: to
        the failure). OK: an answer that is not 502, 503 or 504. FAILED: one of these, none, or one that broke
        off. NO_VERDICT: the client is gone."""
        target.inflight -= 1
        breaker = target.breaker
        if (
            outcome == OK
            and breaker.state == CLOSED
            and epoch == breaker.epoch
            and latency_s <= breaker.slow_s
        ):
            breaker.counted(now)
            target.failures = 0
            if self._measures:
                self._measure(target, latency_s, now)
            else:  # nobody chooses by it: an average for people will do
                target.ewma_s += (latency_s - target.ewma_s) * (0.1 if target.ewma_s else 1.0)
                target.ewma_at = now
        else:
            self._settle_with_care(target, epoch, outcome, latency_s, now)

    def wait_s(self, now: float) -> float:
        """Seconds until some target may be tried, for Retry-After. Without any active target: until the next
        look at their health."""
        waits = [target.breaker.wait_s(now) for target in self._ready if target.state == ACTIVE]
        return min(waits, default=self.policy.health_interval_s)

    # --- retries ---

    def may_retry(self, now: float) -> bool:
        """Take one retry from the budget, for an attempt that has been settled; `retried` gives it back.

        Debited before the pause, not after it: otherwise all requests of a bad moment pass the check while they
        wait, and then retry together (envoy#30205).
        """
        active = sum(target.inflight for target in self.targets) + self._pausing + 1
        if self._retries >= retry.allowance(active, self.policy):
            return False
        self._retries += 1
        self._pausing += 1
        return True

    def retried(self) -> None:
        """The retry is over, or will not take place."""
        self._retries -= 1
        self._pausing = min(self._pausing, self._retries)

    # --- the rest of it ---

    def _take_with_care(
        self, proposed: Target | None, now: float, key: bytes | None, tried: tuple[Target, ...]
    ) -> Target | None:
        if tried:
            self._pausing = max(0, self._pausing - 1)
        usable: Sequence[Target] = [
            target
            for target in self._ready
            if target not in tried and (not target.blocked or target.allows(now))
        ]
        if not usable:
            usable = self._last_resort(now, tried)
            if not usable:
                return None
            self.panicked += 1
            if self.events is not None:
                self.events.panicked(self.name)
        target: Target = self._strategy.choose(usable, proposed, now, key)
        target.breaker.admit(now)
        target.inflight += 1
        return target

    def _last_resort(self, now: float, tried: tuple[Target, ...]) -> list[Target]:
        """Probes can be wrong about everybody at once, and a certain 503 helps nobody: whom only health or an
        ejection keeps out is tried. An open breaker is not overruled: it has seen requests fail just now, and
        lets the next one through by itself."""
        if any(target.allows(now) for target in tried):
            return []  # the request had a good target, so this is no emergency
        return [
            target
            for target in self._ready
            if target not in tried and target.state == ACTIVE and target.breaker.allows(now)
        ]

    def _settle_with_care(
        self, target: Target, epoch: int, outcome: str, latency_s: float, now: float
    ) -> None:
        breaker = target.breaker
        before = breaker.state
        if outcome == NO_VERDICT:
            breaker.released(epoch)
            return
        current = epoch == breaker.epoch
        if outcome == OK:
            breaker.succeeded(epoch, latency_s, now)
            target.failures = 0
            self._measure(target, latency_s, now)
        else:
            breaker.failed(epoch, now)
            if current:
                self._measure(target, max(latency_s, self.policy.ewma_penalty_s), now)
                self._eject_if_due(target, now)
        if breaker.state != before:
            self._turned(target, now)

    def _turned(self, target: Target, now: float) -> None:
        target.blocked = True
        if target.breaker.state == CLOSED:
            target.warm_up(now)
        else:
            target.ewma_at = 0.0  # its probes must not wait until the penalties have faded

    def _measure(self, target: Target, latency_s: float, now: float) -> None:
        """Up at once, down slowly (Finagle's peak EWMA): a target that gets slow is noticed by its first slow
        answer."""
        fade = math.exp((target.ewma_at - now) / self.policy.ewma_decay_s)
        faded_s = target.ewma_s * fade + latency_s * (1.0 - fade)
        target.ewma_s = latency_s if latency_s > faded_s else faded_s
        target.ewma_at = now

    def _eject_if_due(self, target: Target, now: float) -> None:
        policy = self.policy
        if now < target.ejected_until:
            return
        target.failures += 1
        if not policy.outlier_failures or target.failures < policy.outlier_failures:
            return
        ejected = sum(now < one.ejected_until for one in self._ready)
        others = sum(one is not target and one.allows(now) for one in self._ready)
        if not outlier.may_eject(ejected, others, len(self._ready), policy):
            return
        times = outlier.remembered(target.ejections, now - target.ejected_until, policy) + 1
        target.ejections, target.failures = times, 0
        if self.events is not None:
            self.events.ejected(self.name, target.name)
        target.ejected_until = now + outlier.ejection_s(times, policy)
        target.unproven_until = now + outlier.unproven_s(times, policy)
        target.ewma_at = 0.0
        target.warm_up(target.ejected_until)


def _place_of_key(hash_on: str) -> str:
    kind, _, name = hash_on.partition(":")
    if hash_on in ("", "ip") or (kind in ("header", "cookie") and name):
        return hash_on
    raise ValueError(f"{hash_on!r} is not ip, header:NAME or cookie:NAME")
