from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.processes import Broken, running


def test_running__ready_process__is_measured_and_gone_afterwards(tmp_path: Path) -> None:
    with running(
        "server", ["http.server", "0", "--bind", "127.0.0.1"], env=dict(os.environ), folder=tmp_path
    ) as process:
        process.wait_for(lambda: process.cpu_s() > 0)
    assert process.popen.returncode is not None


def test_running__process_that_ends__is_broken_with_its_last_lines(tmp_path: Path) -> None:
    with (
        running("server", ["no_such_module"], env=dict(os.environ), folder=tmp_path) as process,
        pytest.raises(Broken, match="No module named no_such_module"),
    ):
        process.wait_for(lambda: False)
