"""Targets that lie: the client is told so, nobody else notices, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import uvloop

from tests.drills.processes import resident_bytes

from . import client
from .drill import drill
from .liars import CUT, LIES, WHOLE, Liar, Lie
from .rig import open_route, service
from .verdict import Fate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drills.outcome import Outcome

    from .rig import Document, Rig
    from .sites import Target

TIMEOUT_S = 1.0  # of the liar's route: until the head, and between two pieces
LATE_S = 2.0  # that a 504 may come after it
GROWTH_BYTES = 24 << 20
_TIMES = (
    3  # that what was told late and wrong is asked: the machine may have kept the liar from speaking in time
)
_IN_ONE_TURN = 8  # lies at a time; more of them would be late for want of a processor


@drill("lying-targets")
def lying(rig: Rig) -> Outcome:
    rounds = rig.size(0, 12)  # after the first one
    with contextlib.closing(Liar()) as liar, contextlib.closing(Liar()) as alone:
        rig.apply(_document(rig.targets(2), liar, alone))
        edge = rig.edge()
        with rig.load([edge], 6) as load:
            wrong = _round(edge.port)  # which loads what is needed for it
            before = _memory(rig, edge.pids)
            for _ in range(rounds):
                wrong |= _round(edge.port)
            fates = load.stop()
        rig.comes(
            lambda: not edge.figure("brain_gateway_inflight"),
            "nothing is counted as under way any more",
            10.0,
        )
        grown = _memory(rig, edge.pids) - before
    for name, told in wrong.items():
        rig.claim(False, f"{name}: {' or '.join(LIES[name].truth)} (it was {told})")
    rig.claim(grown <= GROWTH_BYTES, f"memory grows by at most {GROWTH_BYTES >> 20} MiB ({grown >> 20})")
    rig.claim(
        "exchange_failed" not in edge.said and "edge_failed" not in edge.said, "no exception in the edge"
    )
    reasons = edge.figure("brain_gateway_upstream_errors_total")
    note = f"{len(LIES)} lies, {rounds + 1} times each, {len(wrong)} told wrong; {reasons:.0f} failures counted, memory {grown / 2**20:+.1f} MiB"
    return rig.outcome(note, fates)


def _document(targets: Sequence[Target], liar: Liar, alone: Liar) -> Document:
    """Nothing takes a liar out of traffic, or asks somebody else."""
    lies = {
        "idle_timeout": TIMEOUT_S,
        "retry": {"retries": 0},
        "breaker": {"volume": 1_000_000},
        "health": {"enabled": False, "eject_after": 0},
    }
    return {
        "services": {
            "work": service(targets),
            "lies": {"targets": [liar.url], **lies},
            "alone": {"targets": [alone.url], **lies},
        },
        "routes": [
            open_route("/work", "work"),
            open_route("/lie", "lies", timeout=TIMEOUT_S),
            open_route("/alone", "alone", timeout=TIMEOUT_S),
        ],
    }


def _round(edge: int) -> dict[str, str]:
    """All lies once: those that were not told as they are to be, with what was told."""
    return uvloop.run(_all(edge))


async def _all(edge: int) -> dict[str, str]:
    turn = asyncio.Semaphore(_IN_ONE_TURN)
    wrong: dict[str, str] = {}

    async def one(name: str, lie: Lie) -> None:
        for _ in range(_TIMES):
            async with turn:
                fate = await _asked(edge, name, lie)
            if any(is_told(fate, truth) for truth in lie.truth):
                return
            if fate.until - fate.at < TIMEOUT_S:
                break
        wrong[name] = str(fate)

    await asyncio.gather(*(one(name, lie) for name, lie in LIES.items() if not lie.alone))
    for name, lie in LIES.items():
        if lie.alone:
            await one(name, lie)
            await asyncio.sleep(0.2)
    return wrong


async def _asked(edge: int, name: str, lie: Lie) -> Fate:
    connection = await client.connect(edge)
    try:
        data = client.request(
            lie.method, f"/{'alone' if lie.alone else 'lie'}/{name}", {}, b"x" * lie.body_bytes
        )
        return await connection.ask(Fate(name, lie.method, 0, is_whole=False), data)
    finally:
        connection.close()


def is_told(fate: Fate, truth: str) -> bool:
    """WHOLE: without a byte of what is not its answer. CUT: after the head, at once or after the idle timeout."""
    if fate.until - fate.at > TIMEOUT_S + LATE_S or "EVIL" in fate.told:
        return False
    if truth == WHOLE:
        return fate.is_whole and not fate.fault and not fate.code
    if truth == CUT:
        return fate.status == 200 and not fate.is_whole and fate.fault != "no answer in time"
    return f"{fate.status} {fate.code}" == truth and fate.is_whole


def _memory(rig: Rig, pids: Sequence[int]) -> int:
    time.sleep(rig.size(0, 1))
    return sum(resident_bytes(pid) for pid in pids)
