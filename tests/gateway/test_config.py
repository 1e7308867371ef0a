"""Documents into rows and back: apply, diff, export, prune."""

from __future__ import annotations
