"""The halves of a store, sync and async, under one test each; the fixture `half` says which."""

from __future__ import annotations

import asyncio
from typing import Any


class Both:
    """`both.get(k)` asks the one half of the store. runner: of the async half; None asks the other."""

    def __init__(self, store: Any, runner: asyncio.Runner | None) -> None:
        self.store, self.runner = store, runner

    def __getattr__(self, name: str) -> Any:
        if self.runner is None:
            return getattr(self.store, name)
        method = getattr(self.store, f"a{name}")

        def call(*arguments: Any, **options: Any) -> Any:
            made = method(*arguments, **options)
            return self.runner.run(_listed(made) if hasattr(made, "__aiter__") else made)  # type: ignore[union-attr]

        return call


async def _listed(found: Any) -> list[Any]:
    return [one async for one in found]
