from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import Unavailable
from benchmarks.queue import backlog, drain, enqueue, latency, replay, rollups
from benchmarks.queue.plan import QUICK, Plan
from benchmarks.queue.sides import FOLDERS, PEER_NAMES, SIDES
from benchmarks.queue.stage import Stage


def test_sides__figures__name_only_sides_that_exist() -> None:
    named = {key for pair in drain.PAIRS for key in (pair.ours, pair.theirs)}
    named |= {way.side for _, way, _ in enqueue.PAIRS} | set(latency.GOALS_MS) | set(backlog.SIDES_MEASURED)
    named |= {*rollups.KEYS, replay.KEY}
    assert named <= SIDES.keys()


@pytest.mark.parametrize("peer", PEER_NAMES)
def test_peer__requirements__are_pinned(peer: str) -> None:
    requirements = FOLDERS / peer / "requirements.txt"
    if not requirements.exists():
        versions = json.loads((FOLDERS / peer / "package.json").read_text())["dependencies"].values()
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)
        return
    lines = requirements.read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def test_plan__side_whose_environment_cannot_be_had__is_told_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, peers: Path) -> str:
        raise Unavailable(f"{name} could not be installed")

    monkeypatch.setattr("benchmarks.queue.plan.runtime", refuse)
    plan = Plan(QUICK, ("celery",), Stage(tmp_path))
    assert plan.available(("ledger-pg", "celery", "huey")) == ["ledger-pg"]
    assert plan.available(("celery",)) == []
    assert plan.notes == ["Celery, Redis, threads: celery could not be installed"]


def test_runtime__same_requirements__are_installed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr(environments, "HOME", tmp_path / "home")
    peers = tmp_path / "peers"
    monkeypatch.setattr(environments, "_run", lambda *command, cwd=None: installed.append(command))
    (peers / "some").mkdir(parents=True)
    requirements = peers / "some" / "requirements.txt"
    requirements.write_text("some==1.0\n")
    first, calls = environments.runtime("some", peers), len(installed)
    assert environments.runtime("some", peers) == first == str(tmp_path / "home" / "some" / "bin" / "python")
    assert len(installed) == calls > 0
    requirements.write_text("some==1.1\n")
    environments.runtime("some", peers)
    assert len(installed) == 2 * calls


def test_runtime__install_fails__says_why_and_tries_again_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HOME", tmp_path)
    with pytest.raises(Unavailable, match="no such thing"):
        environments._run(sys.executable, "-c", "import sys; sys.exit('no such thing')")
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="node is not there"):
        environments.runtime("bullmq", FOLDERS)
