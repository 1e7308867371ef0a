"""Replay: dead letters let go at a set rate while real workers run them; how near to that rate they went."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Figure, judged

from .plan import Plan, say
from .rates import lag_s, mean_rate

KEY = "ledger-pg"
RATE = 500.0  # per second
_OFF = 10.0  # goal: percent


def figures(plan: Plan) -> list[Figure]:
    return plan.attempt("replay", lambda: _measured(plan))


def _measured(plan: Plan) -> list[Figure]:
    count = plan.size.dead_letters
    say(f"replay of {count:,} dead letters at {RATE:.0f}/s …")
    (side,) = plan.up(KEY)
    let_go_s, completed_s = side.replay(count, RATE)
    return judge(let_go_s, completed_s)


def judge(let_go_s: Sequence[float], completed_s: Sequence[float]) -> list[Figure]:
    """When each was let go and when it was done, in seconds of one clock."""
    went = mean_rate(let_go_s)
    first, last = lag_s(let_go_s, RATE)
    done = max(completed_s) - max(let_go_s)
    text = {
        "let go": f"{went:,.1f} /s",
        "ahead and behind": f"{-first:.2f} s, {last:.2f} s at most",
        "the last was done": f"{done:.2f} s after it was let go",
    }
    what = f"replay of {len(let_go_s):,} at {RATE:.0f}/s: off by"
    return [judged(what, abs(went / RATE - 1) * 100, "%", _OFF, text, at_most=True)]
