"""Thousands of clients that never come to the end of their heads: they get 408, and nobody else notices."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.drills.processes import resident_bytes

from .drill import drill
from .loads import Kind
from .rig import simple
from .sites import ROOT
from .verdict import percentile

if TYPE_CHECKING:
    from tests.drills.outcome import Outcome

    from .rig import Rig
    from .sites import Edge

P99_S, WORST_S = 0.3, 2.0  # of everybody else
BYTES_EACH = 16_384  # of memory, for a client whose head is being read
_SPARE_FILES = 500
_LATE_S = 3.0  # that a 408 may come after HEADER_TIMEOUT_S: the next look, and thousands that are due at once


@drill("slow-loris")
def slow_loris(rig: Rig) -> Outcome:
    header_timeout_s = 4.0 if rig.quick else 10.0
    rig.settings(HEADER_TIMEOUT_S=header_timeout_s)
    count = _possible(rig.size(1000, 10_000))
    rig.apply(simple(rig.targets(2)))
    edge = rig.edge()
    kind = Kind(methods=("GET", "POST"), ms=(0, 5), streamed=0)
    with rig.load([edge], 6, kind, keep_alive=40) as load:
        time.sleep(2.0)
        before, began = _memory(edge), time.monotonic()
        said, most = _watched(edge, count, header_timeout_s)
        ended = time.monotonic()
        time.sleep(1.0)
        fates = load.stop()
    calm = [fate.until - fate.at for fate in fates if fate.until < began]
    meanwhile = [fate.until - fate.at for fate in fates if began < fate.at < ended]
    p99_s, worst_s, each = percentile(meanwhile, 99), percentile(meanwhile, 100), (most - before) / count
    rig.claim(p99_s <= P99_S, f"p99 of the others within {P99_S * 1e3:.0f} ms ({p99_s * 1e3:.0f})")
    rig.claim(worst_s <= WORST_S, f"no other waits longer than {WORST_S:.0f} s ({worst_s:.1f})")
    rig.claim(each <= BYTES_EACH, f"at most {BYTES_EACH} bytes each ({each:.0f})")
    rig.claim(said["connected"] == count, f"all {count} are connected ({said['connected']})")
    answered = said["ended"].get("408", 0)
    rig.claim(answered == said["connected"], f"each of them gets 408 ({said['ended']})")
    in_time = header_timeout_s <= said["first_s"] + 0.5 and said["last_s"] <= header_timeout_s + _LATE_S
    rig.claim(in_time, f"after HEADER_TIMEOUT_S ({said['first_s']:.1f} to {said['last_s']:.1f} s)")
    note = (
        f"{count} slow heads ({said['at_once']} at a time), 408 after {said['first_s']:.1f} to {said['last_s']:.1f} s; the"
        f" others' p99 {percentile(calm, 99) * 1e3:.0f} -> {p99_s * 1e3:.0f} ms, worst {worst_s * 1e3:.0f} ms;"
        f" {each / 1024:.1f} KiB each"
    )
    return rig.outcome(note, fates)


def _watched(edge: Edge, count: int, header_timeout_s: float) -> tuple[dict[str, Any], int]:
    """What became of them, and the edge's memory when it was largest."""
    limit_s = count / 500 + 3 * header_timeout_s
    command = [sys.executable, "-m", f"{__package__}.loris", str(edge.port), str(count), str(limit_s)]
    most = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            while process.poll() is None:
                most = max(most, _memory(edge))
                time.sleep(0.2)
            assert process.stdout is not None
            return json.loads(process.stdout.read()), most
        finally:
            process.kill()


def _memory(edge: Edge) -> int:
    return sum(resident_bytes(pid) for pid in edge.pids)


def _possible(count: int) -> int:
    """One process has all of the clients, and one edge process may get most of them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(count, soft - _SPARE_FILES)
