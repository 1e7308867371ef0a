"""The producer of a side, in that side's own environment: commands come in and answers go out, a JSON line each.

{"do": "single", "first": 0, "count": 100, "task": "noop"}     one call a job, timed
{"do": "bulk", …, "batch": 500}                                the side's own way for many, timed
{"do": "paced", …, "rate": 50}                                 one call each 1/rate s; answers when each began

A side may have more of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

TASKS = ("noop", "work_1ms")
WORK_S = {"noop": 0.0, "work_1ms": 0.001}

One = Callable[[str, int], Any]  # task, number
Many = Callable[[str, range], Any]


def serve(
    one: One,
    many: Many,
    completed: Callable[[], int] = lambda: 0,
    more: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
) -> None:
    """Until the input ends. What the libraries print must not mix with the answers, so stdout is taken away first."""
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        own = (more or {}).get(command["do"])
        is_count = command["do"] == "completed"
        if own is not None:
            said = own(command)
        else:
            said = {"completed": completed()} if is_count else answer(command, one, many)
        print(json.dumps(said), file=answers, flush=True)


def answer(command: dict[str, Any], one: One, many: Many) -> dict[str, Any]:
    task, first, count = command["task"], command["first"], command["count"]
    numbers = range(first, first + count)
    began, cpu = time.perf_counter(), time.process_time()
    began_ns: list[int] = []
    if command["do"] == "paced":
        began_ns = _paced(lambda number: one(task, number), numbers, command["rate"])
    elif command["do"] == "bulk":
        for start in range(first, first + count, command["batch"]):
            many(task, range(start, min(start + command["batch"], first + count)))
    else:
        for number in numbers:
            one(task, number)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu_s": cpu_s, "began_ns": began_ns}


def each(one: One) -> Many:
    """For a side without a way for many."""

    def many(task: str, numbers: range) -> None:
        for number in numbers:
            one(task, number)

    return many


def _paced(call: Callable[[int], Any], numbers: range, rate: float) -> list[int]:
    """Open loop: a late call does not move the ones after it."""
    began_ns, due = [], time.monotonic()
    for number in numbers:
        time.sleep(max(0.0, due - time.monotonic()))
        began_ns.append(time.monotonic_ns())
        call(number)
        due += 1 / rate
    return began_ns
