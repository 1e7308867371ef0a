from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.environments import Unavailable
from benchmarks.gateway import (
    asked,
    configuration,
    credentials,
    everything,
    measure,
    sides,
    templates,
    tokens,
)
from benchmarks.gateway.brain import skewed
from benchmarks.gateway.measure import Sample
from benchmarks.gateway.plan import QUICK, Contest, Plan
from benchmarks.gateway.sides import Settings, Side, Started
from benchmarks.processes import Broken
from gateway import document
from gateway.tokens import Issuer, Rejected, Verifier

WHEELS = sorted(path.parent.name for path in templates.PEERS.glob("*/requirements.txt"))


def test_goals__sides__exist() -> None:
    assert everything.AT_MOST.keys() | everything.AT_LEAST.keys() | tokens.GOALS.keys() <= sides.SIDES.keys()


@pytest.mark.parametrize("peer", WHEELS)
def test_peer__requirements__are_pinned_with_hashes(peer: str) -> None:
    text = (templates.PEERS / peer / "requirements.txt").read_text().replace("\\\n", "")
    for line in text.splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", line)


def test_document__as_the_gateway_reads_it__has_the_routes_their_plan_and_three_targets() -> None:
    text = configuration.document([1, 2, 3], configuration.per_second(50, 10), routes=60)
    read = document.load(text, production=True)
    routes = [entry for (kind, _), entry in read.entries.items() if kind == "route"]
    assert (len(routes), sum(entry.get("plan") is not None for entry in routes)) == (60, asked.ROUTES)
    assert all(entry["auth_required"] and entry["roles"] == [credentials.ROLE] for entry in routes)
    assert read.entries["plan", configuration.PLAN]["requests_per_minute"] == 3000


def test_token__our_verifier__takes_it_and_refuses_the_forged_one() -> None:
    verifier = Verifier([Issuer("brain", "HS256", credentials.SECRET.encode(), credentials.ISSUER)])
    claims = verifier.verify(credentials.token(number=7).encode(), time.time())[1]
    assert (claims["sub"], claims["roles"]) == (credentials.SUBJECT, [credentials.ROLE])
    assert credentials.token(number=7) != credentials.token(number=8)
    with pytest.raises(Rejected):
        verifier.verify(credentials.forged().encode(), time.time())


def test_render__places_and_values__have_to_match(tmp_path: Path) -> None:
    source = tmp_path / "peer.cfg"
    source.write_text("bind @PORT@\nlimit @LIMIT@\n")
    made = templates.render(source, tmp_path / "made", port=80, limit=5)
    assert made.read_text() == "bind 80\nlimit 5\n"
    with pytest.raises(KeyError, match="LIMIT"):
        templates.render(source, tmp_path / "made", port=80)
    with pytest.raises(ValueError, match="no place for SECRET"):
        templates.render(source, tmp_path / "made", port=80, limit=5, secret="x")


def test_ahead__clock__is_so_much_further() -> None:
    assert skewed.ahead(lambda: 5.0, 0.1)() == 5.1


def side(key: str, peer: str | None = None, error: Exception | None = None) -> Side:
    def start(ground: Any, stack: ExitStack, settings: Settings) -> Started:
        raise error or AssertionError("not to be started")

    return Side(key, key.title(), start, peer)


@pytest.fixture
def plan() -> Plan:
    return Plan(QUICK, ("known",), SimpleNamespace(upstream=None))  # type: ignore[arg-type]


def test_plan__side_that_cannot_be_had__is_told_once_with_its_reason(plan: Plan) -> None:
    broken = side("one", "known", Unavailable("its wheel is not to be had"))
    with ExitStack() as stack:
        assert plan.up(stack, broken) is None
        assert plan.up(stack, broken) is None
        assert plan.up(stack, side("other", "unwanted")) is None
    assert plan.notes == ["One: its wheel is not to be had"]


def test_contest__side_that_fails_its_proof_in_one_pass__has_no_row(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    def saturated(started: str, *rest: object) -> Sample:
        runs.append(started)
        if started == "bad" and runs.count("bad") == 3:  # warm-up, first pass, second pass
            raise Broken("only 9 of them reached the upstream")
        return Sample(10.0, 1000.0, 1.0, 2.0, served=100)

    monkeypatch.setattr(measure, "saturated", saturated)
    with ExitStack() as stack:
        contest = Contest(plan, stack)
        contest.up = {name: (side(name), name) for name in ("good", "bad")}  # type: ignore[misc]
        monkeypatch.setattr(Contest, "title", lambda self, key: key)
        samples = contest.samples("part", Path("requests"))
    assert {key: len(found) for key, found in samples.items()} == {"good": QUICK.passes}
    assert contest.served["good"] == 100 * (QUICK.passes + 1)
    assert plan.notes == ["part: bad has no row: only 9 of them reached the upstream"]
