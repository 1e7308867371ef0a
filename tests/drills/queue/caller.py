"""`python -m tests.drills.queue.caller FILE COUNT`: enqueue from a process of its own and print the ids."""

from __future__ import annotations

import sys
from pathlib import Path

import django

if __name__ == "__main__":
    django.setup()
    from .evidence import Evidence

    print("\n".join(Evidence(Path(sys.argv[1])).mixed(int(sys.argv[2]), (0.0, 0.01))))
