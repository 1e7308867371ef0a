"""Single calls and batches, one after another and with fifty tasks at once, against the libraries on Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, judged, median, paired

from .rig import sides

SYNC = [  # figure, call, size, peer, goal
    ("get 100 B", "get", "100B", "django_redis", 0.95),
    ("set 100 B", "set", "100B", "django_redis", 0.95),
    ("get_many(20) 100 B", "get_many", "100B", "django_redis", None),
    ("get 10 kB JSON", "get", "10kB", "django_redis_json", 1.25),
    ("set 10 kB JSON", "set", "10kB", "django_redis_json", 1.6),
    ("get_many(20) 10 kB JSON", "get_many", "10kB", "django_redis_json", 1.4),
    ("get 100 B", "get", "100B", "django_core", None),
    ("set 100 B", "set", "100B", "django_core", None),
]
ASYNC = [  # figure, call, size, tasks, peer, goal
    ("aget 100 B, 50 tasks", "aget", "100B", 50, "django_redis", 2.0),
    ("aget_many(20) 100 B", "aget_many", "100B", 1, "django_redis", 15.0),
    ("aset 100 B", "aset", "100B", 1, "django_redis", None),
    ("aget 100 B, 50 tasks", "aget", "100B", 50, "django_core", None),
    ("aget 100 B, 50 tasks", "aget", "100B", 50, "cashews", None),
    ("aget_many(20) 100 B", "aget_many", "100B", 1, "cashews", None),
    ("aget 100 B, 50 tasks", "aget", "100B", 50, "aiocache", None),
    ("aget_many(20) 100 B", "aget_many", "100B", 1, "aiocache", None),
]


def sync(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    n, rounds = (1500, 5) if quick else (4000, 9)
    for figure, call, size, peer, goal in SYNC:
        with sides(["brain", peer], url, folder) as known:
            ours, theirs = [], []
            for number in range(rounds):
                for name in _order(["brain", peer], number):
                    found = known[name].ask(
                        "sync", call=call, size=size, n=n // (1 if call != "get_many" else 4)
                    )
                    (ours if name == "brain" else theirs).append(1e6 / found["p50_us"])
            yield paired(f"{figure} ({peer})", ("brain", ours), (peer, theirs), "/s", goal)


def asynchronous(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    n, rounds = (2000, 5) if quick else (6000, 9)
    for figure, call, size, tasks, peer, goal in ASYNC:
        with sides(["brain", peer], url, folder) as known:
            ours, theirs = [], []
            for number in range(rounds):
                for name in _order(["brain", peer], number):
                    count = n if call != "aget_many" else n // 10
                    found = known[name].ask("async", call=call, size=size, n=count, tasks=tasks)
                    (ours if name == "brain" else theirs).append(found["per_s"])
            yield paired(f"{figure} ({peer})", ("brain", ours), (peer, theirs), "/s", goal)


def memory(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """A hit in L1 through `cache.get`, against django-redis and against caches that are memory alone."""
    n, rounds = (20_000, 5) if quick else (60_000, 9)
    names = [
        "brain_tiered",
        "brain_tiered_reference",
        "django_redis",
        "django_locmem",
        "theine",
        "cachetools",
    ]
    took: dict[str, list[float]] = {name: [] for name in names}
    with sides(names, url, folder) as known:
        for number in range(rounds):
            for name in _order(names, number):
                fewer = n // 20 if name == "django_redis" else n
                took[name].append(known[name].ask("tight", call="get", size="100B", n=fewer)["p50_us"])
                if name.startswith("brain_tiered"):
                    cached = known[name].ask("tight", call="cached", size="100B", n=n // 4)["p50_us"]
                    took.setdefault(f"{name} @cached", []).append(cached)
    texts = {name: median(values, "µs") for name, values in took.items()}
    middle = {name: sorted(values)[len(values) // 2] for name, values in took.items()}
    copied, held = "brain_tiered", "brain_tiered_reference"
    yield judged("L1 hit, copied", middle[copied], "µs", 6.0, {copied: texts[copied]}, at_most=True)
    yield judged("L1 hit, by reference", middle[held], "µs", 2.5, {held: texts[held]}, at_most=True)
    for side, how in ((copied, "copied"), (held, "by reference")):
        name = f"{side} @cached"
        yield judged(f"@cached hit in L1, {how}", middle[name], "µs", None, {side: texts[name]})
    for peer, goal in (("django_redis", 25.0), ("django_locmem", None)):
        ratio = middle[peer] / middle[copied]
        yield judged(f"L1 hit, copied ({peer})", ratio, "x", goal, {copied: texts[copied], peer: texts[peer]})
    for peer in ("theine", "cachetools"):
        ratio = middle[peer] / middle[held]
        yield judged(
            f"L1 hit, by reference ({peer})", ratio, "x", None, {held: texts[held], peer: texts[peer]}
        )


def _order(names: list[str], number: int) -> list[str]:
    """A B, B A, …: a machine that slows down hits both."""
    return names if number % 2 == 0 else list(reversed(names))
