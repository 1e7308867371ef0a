"""Sets, hashes, sorted sets, lists and counters of Redis: what each method sends, and what its reply means. No I/O.

method and arguments → Question (a command, how to read the reply) → either door of redis.py
"""

from __future__ import annotations

from . import hashes, lists, sets, sorted_sets

METHODS = sets.METHODS | hashes.METHODS | sorted_sets.METHODS | lists.METHODS
