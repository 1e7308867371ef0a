"""Ours in two tiers; hits are the stored object itself."""

from __future__ import annotations

from . import brain_tiered


class Side(brain_tiered.Side):
    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(url, prefix, {"COPY": False})
