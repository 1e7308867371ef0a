"""Processes that die, stop, fork, or run another version of the code, with one cache between them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from tests.drills.outcome import Broken, Outcome

from .drill import drill
from .rig import REDIS, ROOT, TIERED, Rig

BEFORE = "4ae5e03"  # entries with another header, no tiers, no tags


@drill("leader-killed")
def leader_killed(rig: Rig) -> Outcome:
    """kill -9 to the process whose loader runs, again and again: another one loads, and only one."""
    store = rig.valkey()
    times = 5 if rig.quick else 40
    extra, slowest_s = 0, 0.0
    for number in range(times):
        began = time.monotonic()
        seen = rig.home / f"load{number}.seen"
        group = [_burst(rig, store.url, f"cold{number}", seen, kind) for kind in ("threads", "tasks") * 2]
        leader = _first_loader(seen)
        os.kill(leader, signal.SIGKILL)
        killed = time.monotonic()
        for process in group:
            process.wait(30)
        rig.claim(
            all(process.returncode in (0, -signal.SIGKILL) for process in group),
            f"round {number}: a caller failed",
        )
        loads = len(seen.read_text().split())
        extra += max(loads - 2, 0)
        slowest_s = max(slowest_s, time.monotonic() - killed)
        rig.claim(time.monotonic() - began < 30, "it took too long")
    note = f"{times} leaders killed among 4 × 50 callers each; {extra} loads beyond the one that took over"
    return rig.outcome(note, duplicated=extra, recovered_s=round(slowest_s, 2))


def _burst(rig: Rig, url: str, key: str, seen: Path, kind: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.drills.cache.burst", url, key, str(seen), kind, "50"]
    with open(rig.home / "burst.log", "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def _first_loader(seen: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if seen.exists() and seen.read_text().endswith("\n"):
            return int(seen.read_text().split()[0])
        time.sleep(0.01)
    raise TimeoutError("nobody began to load")


@drill("lock-holders", quick_s=120.0, full_s=420.0)
def lock_holders(rig: Rig) -> Outcome:
    """Holders of a lock with a lease of 0.5 s are killed, or stopped for longer than it. Never two at once, but for a
    stopped one, whose fence is lower; and it frees nothing that is not its own."""
    store = rig.valkey()
    lockers = [rig.start("locker", REDIS, store.url) for _ in range(4)]
    time.sleep(2.0)
    times = 6 if rig.quick else 40
    for number in range(times):
        victim = random.choice([one for one in lockers if one.poll() is None])
        if number % 2:
            _stop_while_it_holds(rig, victim)
            time.sleep(0.9)
            victim.send_signal(signal.SIGCONT)
        else:
            victim.kill()
            victim.wait()
            lockers.append(rig.start("locker", REDIS, store.url))
        time.sleep(0.4)
        rig.alive()
    rig.stop()
    lines = sorted(rig.lines("locker"), key=lambda line: float(line["at"]))
    held = [line for line in lines if line["do"] == "held"]
    fences = [line["fence"] for line in held]
    doubled = _two_at_once(lines)
    rig.claim(len(set(fences)) == len(fences), "a fence was granted twice")
    rig.claim(fences == sorted(fences), "a later grant had a lower fence")
    rig.claim(len(held) > 50 * times, f"only {len(held)} grants")
    gaps = [late["at"] - early["at"] for early, late in zip(held, held[1:], strict=False)]
    lost = sum(line["do"] == "lost" for line in lines)
    rig.claim(lost >= times // 2, f"only {lost} of {times // 2} stopped holders found their lease over")
    note = f"{times} holders killed or stopped; {len(held):,} grants, {lost} found their lease over"
    return rig.outcome(note, duplicated=doubled, recovered_s=round(max(gaps), 2))


def _stop_while_it_holds(rig: Rig, victim: subprocess.Popen[bytes]) -> None:
    """SIGSTOP hits it somewhere: again, until the last that it said is that it has the lock."""
    for _ in range(500):
        victim.send_signal(signal.SIGSTOP)
        said = rig.seen_of(victim).read_text().rpartition("\n")[0].rpartition("\n")[2]
        if '"held"' in said:
            return
        victim.send_signal(signal.SIGCONT)
        time.sleep(0.002)
    raise Broken("the lock's holder could not be stopped while it held it")


def _two_at_once(lines: list[dict[str, object]]) -> int:
    """Grants during another's work that ended in order and within its lease."""
    ended = {line["fence"]: line for line in lines if line["do"] == "left"}
    spans = [
        (float(line["at"]), float(ended[line["fence"]]["at"]), line["fence"])  # type: ignore[arg-type]
        for line in lines
        if line["do"] == "held" and line["fence"] in ended and float(ended[line["fence"]]["held_s"]) < 0.4  # type: ignore[arg-type]
    ]
    spans.sort()
    return sum(later[0] < earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))


@drill("fork-after-use")
def fork_after_use(rig: Rig) -> Outcome:
    """A process that has used every kind of cache, sync and async, with its threads running, forks; all go on."""
    store = rig.valkey()
    times, wrong = 3 if rig.quick else 20, 0
    slowest_s = 0.0
    for _ in range(times):
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.drills.cache.forking", store.url, str(rig.home / "files")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        slowest_s = max(slowest_s, time.monotonic() - began)
        if done.returncode:
            wrong += 1
            rig.claim(False, done.stderr[-500:] or done.stdout[-500:])
    return rig.outcome(f"{times} parents with 4 children each", lost=wrong, recovered_s=round(slowest_s, 2))


@drill("two-versions")
def two_versions(rig: Rig) -> Outcome:
    """The code as it is and an older one, other serializers and rotated keys, with one prefix: each reads the others'
    values or misses, and nobody raises."""
    store = rig.valkey()
    old = _older(rig.home / "older")
    rig.start("writer", REDIS, store.url, prefix="one", root=old)
    rig.start("reader", REDIS, store.url, prefix="one", root=old)
    rig.start("reader", REDIS, store.url, prefix="one")
    for number, options in enumerate(
        (
            {"SERIALIZER": "typed", "COMPRESSOR": "zstd", "COMPRESS_FROM_BYTES": 0},
            {"SERIALIZER": "json", "SIGN": True, "KEYS": ["new" * 8, "old" * 8]},
            {"SERIALIZER": "pickle", "KEYS": ["old" * 8]},
        )
    ):
        prefix = "two"
        if number == 0:
            rig.start("writer", TIERED, store.url, prefix=prefix, **options)
        rig.start("reader", TIERED, store.url, prefix=prefix, **options)
        rig.start("loader", REDIS, store.url, prefix=prefix, **options)
    rig.start("loader", REDIS, store.url, prefix="two", root=old)
    rig.until_read(100)
    time.sleep(5.0 if rig.quick else 30.0)
    rig.alive()
    rig.stop()
    seen = rig.seen_apart()
    errors = [line for line in rig.lines("writer", "reader", "loader") if line["do"] == "error"]
    foreign = [line for line in rig.lines("loader") if line["do"] == "loading" and line["of"] != line["key"]]
    rig.claim(not errors, f"{len(errors)} calls raised: {(errors or ['?'])[0]}")
    rig.claim(not foreign, f"{len(foreign)} loads of another key")
    hits = sum(one.hits for one in seen)
    note = f"{hits:,} values read, {sum(one.reads for one in seen) - hits:,} misses"
    return rig.outcome(
        note, lost=sum(one.stale + one.wrong for one in seen) + len(foreign), failed=len(errors)
    )


def _older(folder: Path) -> Path:
    """The code of BEFORE, out of the repository's history, with today's drill beside it."""
    archive = subprocess.run(
        ["git", "archive", BEFORE, "cache_app", "foundation"], cwd=ROOT, capture_output=True, check=True
    )
    folder.mkdir()
    bundle = folder / "older.tar"
    bundle.write_bytes(archive.stdout)
    with tarfile.open(bundle) as opened:
        opened.extractall(folder, filter="data")
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder
