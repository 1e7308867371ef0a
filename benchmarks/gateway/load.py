"""As many requests as a few connections carry: wrk where it is installed, else h2load."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Unavailable
from benchmarks.processes import Broken

from . import binaries

SCRIPT = Path(__file__).with_name("wrk.lua")
GRACE_S = 30.0  # over the time that a run was to take
_MARK = "OUTCOME "


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the generator saw. refused: answers of 400 and above. broken: connections, not answers."""

    answered: int
    refused: int
    broken: int
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def per_s(self) -> float:
        return self.answered / self.seconds


def run(port: int, requests: Path, *, seconds: float, connections: int) -> Outcome:
    """Raises Missing when no generator is installed, Unavailable for what the installed one cannot send."""
    wrk, h2load = binaries.wrk(), binaries.h2load()
    if wrk:
        return _wrk(wrk, port, requests, seconds, connections)
    if h2load:
        return _h2load(h2load, port, requests, seconds, connections)
    raise binaries.generator_missing()


def _wrk(wrk: Path, port: int, requests: Path, seconds: float, connections: int) -> Outcome:
    sizes = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    said = _said([wrk, *sizes, "-s", SCRIPT, f"http://127.0.0.1:{port}/", "--", requests], seconds)
    return read_wrk(said)


def read_wrk(said: str) -> Outcome:
    line = next((line for line in said.splitlines() if line.startswith(_MARK)), "")
    if not line:
        raise Broken(f"wrk did not end well:\n{said[-1000:]}")
    return Outcome(**json.loads(line.removeprefix(_MARK)))


def _h2load(h2load: Path, port: int, requests: Path, seconds: float, connections: int) -> Outcome:
    lines = [line.split() for line in requests.read_text().splitlines()]
    headers = {tuple(line[1:]) for line in lines}
    if len(headers) > 1:
        raise Unavailable("h2load has one set of headers for all requests: install wrk (apt install wrk)")
    addresses, log = requests.with_suffix(".urls"), requests.with_suffix(".log")
    addresses.write_text("".join(f"http://127.0.0.1:{port}{line[0]}\n" for line in lines))
    log.unlink(missing_ok=True)
    sizes = ["--h1", "-t1", f"-c{connections}", "-D", str(max(1, round(seconds)))]
    header = f"authorization: Bearer {headers.pop()[0]}"
    said = _said([h2load, *sizes, "-H", header, f"--log-file={log}", "-i", addresses], seconds)
    if not log.exists():
        raise Broken(f"h2load did not end well:\n{said[-1000:]}")
    return read_h2load(log.read_text(), float(max(1, round(seconds))))


def read_h2load(log: str, seconds: float) -> Outcome:
    """A line is start, status and duration of one request, in µs; the status is -1 for one that broke."""
    rows = [line.split() for line in log.splitlines()]
    statuses = [int(row[1]) for row in rows]
    durations = sorted(float(row[2]) for row, status in zip(rows, statuses, strict=True) if status > 0)
    if not durations:
        raise Broken("h2load got no answer")
    refused, broken = sum(status >= 400 for status in statuses), sum(status < 0 for status in statuses)
    return Outcome(len(durations), refused, broken, seconds, _rank(durations, 0.5), _rank(durations, 0.99))


def _rank(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(share * len(ordered)) - 1]


def _said(command: list[object], seconds: float) -> str:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + GRACE_S)
    except subprocess.TimeoutExpired as error:
        raise Broken(f"{Path(words[0]).name} did not end in {seconds + GRACE_S:.0f} s") from error
    return done.stdout + done.stderr
