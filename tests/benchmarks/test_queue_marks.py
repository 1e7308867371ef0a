from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.processes import ROOT
from benchmarks.queue import marks


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> marks.Marks:
    rig = marks.Marks(tmp_path / "marks")
    for name, value in rig.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(marks, "_opened", None)
    return rig


def test_enter__open_gate__leaves_the_time_and_the_process(rig: marks.Marks) -> None:
    before = time.monotonic_ns()
    marks.enter(7)
    asyncio.run(marks.aenter(9))
    entered = rig.entered_ns(7, 3)
    assert before <= entered[0] <= entered[2] <= time.monotonic_ns()
    assert entered[1] == 0
    assert rig.processes() == 1


def test_enter__closed_gate__waits_and_lets_lower_numbers_through(rig: marks.Marks) -> None:
    rig.close_at(5)
    marks.enter(4)
    late = threading.Thread(target=marks.enter, args=(5,))
    late.start()
    time.sleep(3 * marks.GATE_POLL_S)
    assert rig.entered_ns(4, 2)[1] == 0
    rig.open()
    late.join(60)
    assert rig.entered_ns(5, 1) != [0]


def test_enter__second_process__marks_the_same_file_and_tells_its_pid(rig: marks.Marks) -> None:
    marks.enter(0)
    code = "from benchmarks.queue.marks import enter; enter(1)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert 0 not in rig.entered_ns(0, 2)
    assert rig.processes() == 2
