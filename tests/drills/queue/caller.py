"""`python -m tests.drills.queue.caller FILE COUNT DELAY_S`: enqueue from a process of its own and print the ids."""

from __future__ import annotations

import sys
from pathlib import Path

import django

if __name__ == "__main__":
    django.setup()
    from .evidence import Evidence

    file, count, delay_s = sys.argv[1:]
    print("\n".join(Evidence(Path(file)).mixed(int(count), (0.0, 0.01), delay=float(delay_s))))
