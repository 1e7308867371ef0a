"""Where a drill takes place: the one place that starts its edges and targets, and judges the end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.drills.outcome import Broken, Outcome
from tests.drills.servers import Valkey
from tests.servers import answers, free_port

from .loads import Kind, Load
from .sites import Edge, NotReady, Process, Target
from .verdict import Excuse, Fate, judge, percentile

SECRET = "a-secret-of-this-drill-alone-0123456789"
ISSUER = "brain"
Document = dict[str, Any]


class Rig:
    """What a family's drills work with. limit: monotonic seconds at which it gives up."""

    def __init__(
        self, name: str, *, quick: bool, home: Path, database_url: str, store: Valkey, limit_s: float
    ) -> None:
        self.name, self.quick, self.home = name, quick, home
        self.database_url, self.store = database_url, store
        self.deadline = time.monotonic() + limit_s
        self.claims: list[str] = []  # what else was to hold and did not
        self._started: list[Process] = []

    def size(self, quick: int, full: int) -> int:
        return quick if self.quick else full

    # --- what it works with ---

    def settings(self, **values: Any) -> None:
        """Of BRAIN["GATEWAY"], for edges that are started from here on."""
        (self.home / "data" / "gateway.json").write_text(json.dumps(values))

    def targets(self, count: int) -> list[Target]:
        made = [Target(self._log("target"), self.home / "seen", free_port()) for _ in range(count)]
        self._started += made
        for target in made:
            self._ready(target, answers(target.port))
        return made

    def again(self, target: Target) -> Target:
        fresh = target.again()
        self._started.append(fresh)
        return fresh

    def edge(self, *, workers: int = 2, ahead_s: float | None = None) -> Edge:
        (edge,) = self.edges(1, workers=workers, ahead_s=(ahead_s,))
        return edge

    def edges(self, count: int, *, workers: int = 2, ahead_s: Sequence[float | None] = (None,)) -> list[Edge]:
        made = [
            Edge(self._log("edge"), workers=workers, ahead_s=ahead_s[number % len(ahead_s)])
            for number in range(count)
        ]
        self._started += made
        for edge in made:
            try:
                edge.ready()
            except NotReady as error:
                raise Broken(f"not in time: {error}") from error
        return made

    def load(
        self, edges: Sequence[Edge], clients: int = 12, kind: Kind | None = None, **options: Any
    ) -> Load:
        return Load([edge.port for edge in edges], clients, kind, **options)

    def close(self) -> None:
        for process in self._started:
            process.kill()

    def _log(self, what: str) -> Path:
        return self.home / f"{what}-{len(list(self.home.glob(f'{what}-*.log')))}-{len(self._started)}.log"

    def _ready(self, process: Process, ready: Callable[[], bool]) -> None:
        try:
            process.wait_for(ready)
        except NotReady as error:
            raise Broken(f"not in time: {error}") from error

    # --- the product's own commands ---

    def manage(self, *arguments: str) -> str:
        """What the command says, run in this process: a hundred of them would wait for a hundred interpreters."""
        from django.core.management import call_command

        out = io.StringIO()
        call_command("gateway", *arguments, stdout=out, stderr=io.StringIO())
        return out.getvalue()

    def apply(self, document: Document) -> None:
        """`manage.py gateway apply --prune`."""
        file = self.home / "gateway.yaml"
        file.write_text(json.dumps(document))  # JSON is YAML
        self.manage("apply", str(file), "--prune")

    # --- time ---

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
        """Raises Broken when it does not come in time."""
        deadline = min(self.deadline, time.monotonic() + timeout_s)
        while True:
            with contextlib.suppress(OSError):
                if found := condition():
                    return found
            if time.monotonic() > deadline:
                raise Broken(f"not in time: {what}{self._last_words()}")
            time.sleep(0.02)

    def comes(self, condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> float:
        """Seconds until it held; not in time is one more claim that did not hold."""
        began = time.monotonic()
        try:
            self.until(condition, what, timeout_s)
        except Broken as error:
            self.claims.append(str(error))
        return time.monotonic() - began

    # --- the end ---

    def claim(self, holds: bool, what: str) -> None:
        if not holds:
            self.claims.append(what)

    def runs(self) -> Counter[str]:
        """How often each id has been read by a target."""
        file = self.home / "seen"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def outcome(
        self,
        note: str,
        fates: Iterable[Fate] = (),
        excuses: Sequence[Excuse] = (),
        *,
        recovered_s: float | None = 0.0,
        within_s: float = 30.0,
        failed: int = 0,
        lost: int = 0,
    ) -> Outcome:
        """within_s: of the recovery. failed, lost: what the drill has counted beside the fates."""
        known = list(fates)
        verdict = judge(known, self.runs(), excuses)
        self.claim(recovered_s is not None and recovered_s <= within_s, f"recovered within {within_s:.0f} s")
        told = [note]
        if known:
            p50, p99 = (
                percentile([fate.until - fate.at for fate in known if fate.is_good], n) * 1e3
                for n in (50, 99)
            )
            told.append(f"{verdict.total} requests, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        told += [f"{count} {why}" for why, count in verdict.excused.items()]
        told += [
            f"PROBLEM: {one}" for one in (*verdict.problems, *(f"not so: {claim}" for claim in self.claims))
        ]
        return Outcome(
            self.name,
            verdict.lost + lost,
            verdict.duplicated,
            verdict.failed + failed,
            None if recovered_s is None else round(recovered_s, 2),
            passed=not (verdict.problems or self.claims or lost),
            note="; ".join(told),
        )

    def _last_words(self) -> str:
        """Whatever was worse than information."""
        edges = [process for process in self._started if isinstance(process, Edge)]
        lines = [line for edge in edges for line in edge.said.splitlines() if '"level": "info"' not in line]
        return "".join(f"\n  {line[:300]}" for line in lines[-6:])


def service(targets: Iterable[Target], **values: Any) -> Document:
    """Health and breaker in short times, so that minutes become seconds."""
    return {
        "targets": [target.url for target in targets],
        "health": {"interval": 0.5, "slow_start": 1.0, "eject": 1.0},
        "breaker": {"open": 0.5, "open_max": 2.0},
        **values,
    }


def open_route(path: str, service: str, **values: Any) -> Document:
    return {"path": path, "service": service, "auth_required": False, **values}


def simple(targets: Iterable[Target], **values: Any) -> Document:
    """One open route to one service of these."""
    return {"services": {"work": service(targets, **values)}, "routes": [open_route("/work", "work")]}


def marked(route: Mapping[str, Any], mark: int) -> Document:
    """The route's answers say which configuration they were served by."""
    return {
        **route,
        "transforms": [{"name": "mark", "response": {"headers": {"set": {"X-Mark": str(mark)}}}}],
    }


@contextlib.contextmanager
def rig(
    name: str, *, quick: bool, home: Path, database_url: str, store: Valkey, limit_s: float
) -> Iterator[Rig]:
    """Django set up on the drill's own database and Valkey; what it started is gone when the block ends."""
    _environment(home, database_url, store)
    _open_files()
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    here = Rig(name, quick=quick, home=home, database_url=database_url, store=store, limit_s=limit_s)
    try:
        yield here
    finally:
        here.close()


def _environment(home: Path, database_url: str, store: Valkey) -> None:
    """Of this process and of all that it starts."""
    for name in [
        n for n in os.environ if n.startswith("BRAIN_") or n in ("DATABASE_URL", "REDIS_URL", "BROKER_URL")
    ]:
        del os.environ[name]
    (home / "data").mkdir()
    os.environ |= {
        "BRAIN_DATA_DIR": str(home / "data"),
        "BRAIN_DEMO": "0",
        "BRAIN_LOG_LEVEL": "ERROR",
        "BRAIN_LOG_JSON": "1",
        "PYTHONFAULTHANDLER": "1",
        "DATABASE_URL": database_url,
        "REDIS_URL": store.url,
        "DJANGO_SETTINGS_MODULE": f"{__package__}.settings",
    }


def _open_files() -> None:
    """As many as we may, for edges and clients with thousands of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
