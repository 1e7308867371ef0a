"""A pytest plug-in that is loaded before Django's settings: every run has its own data directory and its own Valkey.

Settings of the caller's shell never reach the tests; a `BRAIN_TEST_…_URL` points them at a server of the caller's.
"""

from __future__ import annotations

import os
import shutil
import tempfile

# Short: a Valkey socket below it must fit into sun_path.
DATA_DIR = tempfile.mkdtemp(prefix="brain-test-")

for name in list(os.environ):
    if name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL") or (
        name.startswith("BRAIN_") and not name.startswith("BRAIN_TEST_")
    ):
        del os.environ[name]
os.environ["BRAIN_DATA_DIR"] = DATA_DIR
os.environ["DJANGO_SETTINGS_MODULE"] = "brain_project.settings"


def pytest_unconfigure() -> None:
    shutil.rmtree(DATA_DIR, ignore_errors=True)
