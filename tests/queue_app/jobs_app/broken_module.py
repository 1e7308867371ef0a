"""Cannot be imported; only test_registry_modules.py tries."""

from __future__ import annotations

raise RuntimeError("broken by the test")
