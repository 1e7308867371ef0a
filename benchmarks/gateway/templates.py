"""A peer's configuration file: text with `@NAME@` where a value goes."""

from __future__ import annotations

import re
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
_PLACE = re.compile(r"@([A-Z_]+)@")


def render(source: Path, target: Path, **values: object) -> Path:
    """Raises KeyError for a place without a value, ValueError for a value without a place: a limit that is nowhere in
    the file limits nothing."""
    text = source.read_text()
    given = {name.upper(): str(value) for name, value in values.items()}
    unused = given.keys() - set(_PLACE.findall(text))
    if unused:
        raise ValueError(f"{source.name} has no place for {', '.join(sorted(unused))}")
    target.write_text(_PLACE.sub(lambda found: given[found[1]], text))
    return target
