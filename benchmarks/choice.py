"""Options that take some of the names there are, as `--only a,b`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def some_of(names: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """The `type` of such an option: each name once, in the order given."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        wrong = [name for name in chosen if name not in names]
        if wrong or not chosen:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong) or 'nothing'} is not of: {', '.join(names)}")
        return chosen

    return parse
