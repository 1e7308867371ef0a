from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brain_project import platform_state


def test_lock__held__names_its_pid_and_is_free_afterwards(tmp_path: Path):
    with platform_state.lock(tmp_path):
        again = platform_state.lock(tmp_path)
        with pytest.raises(platform_state.AlreadyRunning, match=f"already running: pid {os.getpid()}"):
            again.__enter__()
        assert platform_state.running_pid(tmp_path) == os.getpid()
    assert platform_state.running_pid(tmp_path) is None


def test_lock__holder_was_killed__is_free(tmp_path: Path):
    code = "import sys,time,pathlib; from brain_project import platform_state as p\n"
    code += "with p.lock(pathlib.Path(sys.argv[1])): print(1, flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"1\n"
    assert platform_state.running_pid(tmp_path) == holder.pid
    holder.kill()
    holder.communicate()
    assert platform_state.running_pid(tmp_path) is None


def test_write__twice__is_private_and_replaced_whole(tmp_path: Path):
    platform_state.write(tmp_path, {"site": "a", "pids": {"up": 1}})
    platform_state.write(tmp_path, {"site": "b"})
    assert platform_state.read(tmp_path) == {"site": "b"}
    assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["up.json"]


def test_read__broken_file__is_empty(tmp_path: Path):
    (tmp_path / "up.json").write_text("{half")
    assert platform_state.read(tmp_path) == {}


def test_stop__nothing_runs__says_so(tmp_path: Path):
    assert platform_state.stop(tmp_path, timeout_s=1) is None
