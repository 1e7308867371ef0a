"""The command lines of benchmarks and drills."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("module", "name"), [("benchmarks", "slice"), ("tests.drills", "queue")])
def test_command__no_name__lists_the_names_and_an_unknown_one_is_exit_code_2(module: str, name: str) -> None:
    listed = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True)
    assert (listed.returncode, listed.stdout.split()) == (0, [name])
    unknown = subprocess.run([sys.executable, "-m", module, "nope"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert name in unknown.stderr
