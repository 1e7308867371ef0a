"""The exact bucket, one script for each request, against leased tokens; the store says how often it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import redis

from benchmarks.figures import Figure, judged
from benchmarks.processes import Broken

from . import configuration, rows
from .measure import Sample
from .plan import Contest, Plan
from .sides import BRAIN, Settings

PART, GOAL = "exact", 1.7
LEASED_AT_MOST, EXACT_AT_LEAST = 0.2, 0.95  # scripts a request
_SCRIPTS = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


def figures(plan: Plan) -> list[Figure]:
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        contest.enter(BRAIN, key="leased")
        contest.enter(BRAIN, Settings(plan=configuration.EXACT), key="exact")
        before = {key: scripts(started.redis_url) for key, (_, started) in contest.up.items()}
        samples = contest.samples(PART, plan.requests())
        asked = {key: scripts(contest.up[key][1].redis_url) - before[key] for key in samples}
    return judge(samples, asked, contest.served) if len(samples) == 2 else []


def judge(
    samples: Mapping[str, Sequence[Sample]], asked: Mapping[str, int], served: Mapping[str, int]
) -> list[Figure]:
    """asked: scripts of each side; served: requests. Raises Broken when a side did not count as it was to."""
    shares = {key: asked[key] / served[key] for key in samples}
    if shares["leased"] > LEASED_AT_MOST:
        raise Broken(
            f"the leased side asked the store {shares['leased']:.2f} times a request: nothing was leased"
        )
    if shares["exact"] < EXACT_AT_LEAST:
        raise Broken(f"the exact side asked the store only {shares['exact']:.2f} times a request")
    exact, leased = (rows.cpu(key, samples[key]) for key in ("exact", "leased"))
    texts = {key: f"{share:.3f}" for key, share in shares.items()}
    return [
        rows.at_most(f"{PART}: CPU a request, times that of leased tokens", exact, leased, GOAL),
        judged(f"{PART}: scripts a request", shares["exact"], "", None, texts),
        *(rows.side(PART, key, samples[key]) for key in samples),
    ]


def scripts(url: str) -> int:
    """How many the store has run."""
    with redis.Redis.from_url(url) as client:
        said = client.info("commandstats")
    return sum(int(said[name]["calls"]) for name in _SCRIPTS if name in said)
