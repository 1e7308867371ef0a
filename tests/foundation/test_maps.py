"""Each package's page has a map of its files, and no file is missing on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPS = {
    "gateway": ("gateway.md", "What is where"),
    "queue_app": ("queue.md", "What is where"),
    "cache_app": ("cache.md", "Where things stand"),
    "orm_app": ("databases.md", "What is where"),
}


@pytest.mark.parametrize("package", MAPS)
def test_map__every_file_of_the_package__is_on_it_and_no_other(package: str) -> None:
    page, title = MAPS[package]
    _, found, rest = (ROOT / "docs" / page).read_text().partition(f"\n## {title}\n")
    assert found, f"docs/{page} has no map"
    table = "\n".join(line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| "))
    named = {name.rstrip("/") for name in re.findall(r"`([a-z][\w.]*[*/]?)`", table)}
    groups = tuple(name.removesuffix("*") for name in named if name.endswith("*"))
    below = [path for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".lua") or path.is_dir()]
    everything = {path.stem if path.suffix == ".py" else path.name for path in below}
    own = {
        name
        for path in below
        if path.parent == ROOT / package and (name := path.name.removesuffix(".py"))[0] != "_"
    }
    unmapped = own - named - {"migrations", "templates", "static", "apps"}
    assert not {name for name in unmapped if not (groups and name.startswith(groups))}
    named.discard(package)
    assert not {name for name in named - everything if not name.endswith("*") and "." not in name}
