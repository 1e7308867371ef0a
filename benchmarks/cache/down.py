"""What a call costs while the server does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, judged
from tests.drills import servers

from .rig import sides


def down(url: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    n = 2000 if quick else 10_000
    with servers.valkey(folder) as own, sides(["brain_ignore"], own.url, folder) as known:
        side = known["brain_ignore"]
        side.ask("sync", call="get", size="100B", n=200)
        with own.frozen():
            side.ask("down", n=4)  # until the breaker is open; each waits for its timeout
            found = side.ask("down", n=n)
    text = f"p50 {found['p50_us']:.1f} µs, p99 {found['p99_us']:.1f} µs; {found['raised']} of {n:,} raised"
    told = {"brain_ignore": text}
    yield judged("frozen server, breaker open: p99", found["p99_us"] / 1000, "ms", 1.0, told, at_most=True)
    yield judged("raised with ON_DOWN=ignore", found["raised"], "calls", 0.0, told, at_most=True)
