"""The Python of docs/queue-testing.md, as files of a project that uses the site: run by pytest in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"```python\n# (\S+\.py)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_examples__of_the_page__pass_without_a_broker(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "queue-testing.md").read_text()
    files = BLOCK.findall(text)
    assert len(files) == text.count("```python") >= 6
    for name, source in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    options = [
        "-q",
        "-p",
        "tests.environment",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        "-W",
        "error",
        "--strict-markers",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    tests = sum(len(re.findall(r"^ *def test_", source, re.MULTILINE)) for _, source in files)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert f"{tests} passed" in done.stdout
