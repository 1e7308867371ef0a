"""Whether and when a failed job runs again: exponential back-off with full jitter (AWS Architecture Blog, 2015), rules by
exception, and a budget of retries (Google's SRE book, chapter 21)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

from .failures import words
from .states import State

_LARGEST_EXPONENT = 62  # 2.0 ** attempt would overflow for a job that is tried a thousand times
WINDOW_S = 60.0  # over which a budget is counted
RESERVE = 10  # retries in a window that cost no budget, so that a task with few runs is retried at all


class Retry(Exception):
    """Raised by a handler: run this job again, `after` so many seconds (or a timedelta); None: after the usual wait.

    It counts as a run, so the last one that the job may have ends in the dead letters all the same.
    """

    def __init__(self, why: str = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(why)
        self.after_s = after.total_seconds() if isinstance(after, timedelta) else after
        if self.after_s is not None and not 0 <= self.after_s < float("inf"):
            raise ValueError(f"after = {after!r} is not a wait in seconds")


class Discard(Exception):
    """Raised by a handler: nobody needs this job any more. It ends as CANCELLED, with the reason in its history."""


class DeadLetter(Exception):
    """Raised by a handler: no further run will help. The job is a dead letter at once."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failures of one kind are retried; what is None is as for the task's others. max_retries only lowers theirs."""

    max_retries: int | None = None
    backoff_base_s: float | None = None
    backoff_max_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Of a task. retry_on: the failures that are retried, None for all; of two classes that match the nearer one wins."""

    retry_on: Mapping[type[BaseException], RetryPolicy] | None = None
    never_retry_on: frozenset[type[BaseException]] = field(default_factory=frozenset)

    def policy(self, error: BaseException) -> RetryPolicy | None:
        """None: not retried."""
        for kind in type(error).__mro__:
            if kind in self.never_retry_on:
                return None
            if self.retry_on is not None and kind in self.retry_on:
                return self.retry_on[kind]
        return RetryPolicy() if self.retry_on is None else None


def rules(
    retry_on: Mapping[type[BaseException], RetryPolicy] | Iterable[type[BaseException]] | None,
    never_retry_on: Iterable[type[BaseException]],
) -> Rules:
    """As `@task` is given them: exceptions, or a policy for each. Raises TypeError for what is no exception."""
    if retry_on is not None and not isinstance(retry_on, Mapping):
        retry_on = {kind: RetryPolicy() for kind in retry_on}
    never = frozenset(never_retry_on)
    for kind in [*(retry_on or ()), *never]:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{kind!r} is not an exception class")
    return Rules(retry_on, never)


class RetryBudget:
    """Of one task in one process: at most `ratio` of its runs in the last WINDOW_S may be retries, RESERVE apart.

    Past it a failure is retried after the longest wait, not sooner: when everything fails, what it calls is down, and
    retries would multiply its load. Times are in seconds of any steady clock.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._lock = threading.Lock()
        self._runs: deque[float] = deque(maxlen=10_000)
        self._retries: deque[float] = deque(maxlen=10_000)

    def ran(self, now: float) -> None:
        with self._lock:
            self._runs.append(now)

    def take(self, now: float) -> bool:
        """Take one retry from the budget; False when there is none left."""
        with self._lock:
            for times in (self._runs, self._retries):
                while times and times[0] < now - WINDOW_S:
                    times.popleft()
            if len(self._retries) >= max(RESERVE, self._ratio * len(self._runs)):
                return False
            self._retries.append(now)
            return True


class Decision(NamedTuple):
    """FAILED with the seconds to wait, or DEAD_LETTER or CANCELLED with the reason, for the job's history."""

    state: State
    delay_s: float | None = None
    reason: str = ""


def decide(
    error: BaseException,
    *,
    attempt: int,
    max_attempts: int,
    rules: Rules,
    base_s: float,
    max_s: float,
    jitter: float,
    budget: RetryBudget | None,
    now: float,
) -> Decision:
    """What becomes of a job whose run number `attempt` (1 = the first) raised `error`.

    base_s, max_s: the longest waits before the first retry and before any. jitter: uniform in [0, 1). now: the budget's
    clock.
    """
    if isinstance(error, Discard):
        return Decision(State.CANCELLED, reason=words(error) or "discarded")
    policy = None if isinstance(error, DeadLetter) else _policy(error, rules)
    if policy is None:
        return Decision(State.DEAD_LETTER, reason="not retried")
    if policy.max_retries is not None:
        max_attempts = min(max_attempts, 1 + policy.max_retries)
    if attempt >= max_attempts:
        return Decision(State.DEAD_LETTER, reason="last run")
    if isinstance(error, Retry) and error.after_s is not None:
        return Decision(State.FAILED, error.after_s)
    base_s = base_s if policy.backoff_base_s is None else policy.backoff_base_s
    max_s = max_s if policy.backoff_max_s is None else policy.backoff_max_s
    if budget is not None and not budget.take(now):
        return Decision(State.FAILED, max_s * (0.5 + jitter / 2), "over the retry budget")
    return Decision(State.FAILED, jitter * longest_delay_s(attempt, base_s=base_s, max_s=max_s))


def longest_delay_s(attempt: int, *, base_s: float, max_s: float) -> float:
    """Upper bound of the wait after run number `attempt` (1 = the first): base · 2^(attempt-1), at most max."""
    return min(max_s, base_s * 2.0 ** min(attempt - 1, _LARGEST_EXPONENT))


def _policy(error: BaseException, rules: Rules) -> RetryPolicy | None:
    return RetryPolicy() if isinstance(error, Retry) else rules.policy(error)
