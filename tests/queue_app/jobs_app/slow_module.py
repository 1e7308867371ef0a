"""Takes a while to be imported; only test_registry_modules.py asks for it."""

from __future__ import annotations

import time
from typing import Any

from queue_app import task

time.sleep(0.3)


@task(queue="slow_module")
def answer(payload: dict[str, Any]) -> int:
    return 42
