"""A target goes away under load, at once or in order: what can be sent again is, and nobody notices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .drill import drill
from .rig import simple
from .verdict import Excuse, Fate

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig
    from .sites import Target

_AFTER_S = 1.0  # before and after each blow
_PUBLISHED_S = 1.5  # until the figures of all processes are there
_GIVEN_UP = ((502, "connect_failed"), (502, "upstream_closed"))
BEGUN = Excuse("cut off in the middle of their answers", lambda fate: fate.has_begun)
UNREPEATABLE = Excuse(
    "POST that the target may have read (502 upstream_closed)",
    lambda fate: fate.method == "POST" and (fate.status, fate.code) == (502, "upstream_closed"),
)


@drill("target-killed")
def killed(rig: Rig) -> Outcome:
    return _gone(rig, "kill -9", _kill, (BEGUN, UNREPEATABLE))


@drill("target-stopped")
def stopped(rig: Rig) -> Outcome:
    """It answers what it has read, so that nothing is cut off; a POST may reach a connection as it is closed."""
    return _gone(rig, "SIGTERM", _stop, (UNREPEATABLE,))


def _kill(target: Target) -> None:
    target.kill()


def _stop(target: Target) -> None:
    code, _ = target.end()
    assert code == 0


def _gone(rig: Rig, how: str, strike: Callable[[Target], None], excuses: tuple[Excuse, ...]) -> Outcome:
    """The first half of the rounds with a retry budget that is enough, the second half with the default one."""
    rounds = rig.size(2, 20)
    targets = rig.targets(3)
    rig.apply(simple(targets, retry={"budget_ratio": 1.0}))
    edge = rig.edge()
    longest_s, tight_at = 0.0, math.inf
    with rig.load([edge], 16) as load:
        for number in range(rounds):
            if number == rounds // 2:
                tight_at = time.monotonic()
                rig.apply(simple(targets))
            time.sleep(_AFTER_S)
            victim = number % len(targets)
            strike(targets[victim])
            time.sleep(_AFTER_S)
            targets[victim] = rig.again(targets[victim])
            longest_s = max(longest_s, _back(rig, load.fates, targets[victim].name))
        fates = load.stop()
    time.sleep(_PUBLISHED_S)
    retries, denied = (edge.figure(f"brain_gateway_retries{what}_total") for what in ("", "_denied"))
    rig.claim(retries > 0, "requests were sent to another target")
    unpaid = Excuse(
        "beyond the retry budget", lambda fate: fate.at > tight_at and (fate.status, fate.code) in _GIVEN_UP
    )
    over = sum(not fate.is_good and fate.is_idempotent and unpaid.holds(fate) for fate in fates)
    rig.claim(over <= denied, f"at most {denied:.0f} requests were given up ({over} were)")
    note = f"{rounds} × {how} to one of three targets, in traffic again after {longest_s:.1f} s; {retries:.0f} retries"
    return rig.outcome(note, fates, (*excuses, unpaid), recovered_s=longest_s)


def _back(rig: Rig, fates: list[Fate], target: str) -> float:
    """Seconds until it has served again."""
    since = time.monotonic()
    return rig.comes(
        lambda: any(fate.target == target and fate.at > since for fate in fates[-500:]), "served again"
    )
