"""Rows of the statistics, read fast and added to: tallies → rows of their level, and of coarser ones that are summed up already.

Whoever writes holds the position of the counting (`hold`): so one counts or sums up at a time, whoever thinks that he leads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from django.db import connection
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from . import clock
from .histograms import SUMMED, Tally, from_json, to_json
from .levels import LEVELS, Key, Mark, Marks, coarser, floor
from .models import Lease, Rollup, RollupLevel

NAME = "rollups"
ROWS = 500  # in one statement, when rows are written or thinned out
_KEY = ("step_s", "at", "queue", "name", "tenant")
_TEXTS = {"wait_text": Cast("wait", TextField()), "run_text": Cast("run", TextField())}

Tallies = dict[Key, Tally]


def hold() -> None:
    """The first statement of a transaction that writes: the row's lock keeps a second leader out."""
    mine = Lease.objects.filter(name=NAME)
    if not mine.update(name=NAME):
        Lease.objects.get_or_create(name=NAME, defaults={"until": clock.now()})
        mine.update(name=NAME)


def marks() -> dict[int, Mark]:
    """Of every level."""
    rows = RollupLevel.objects.values_list("step_s", "upto", "row", "kept_from")
    found = {step_s: Mark(*mark) for step_s, *mark in rows}
    return {step_s: found.get(step_s, Mark()) for step_s in LEVELS}


def plain(rows: QuerySet[Rollup], *fields: str) -> QuerySet[Rollup, Any]:
    """As tuples: the fields, both histograms as the texts that they are stored as, and what SUMMED names.

    A model's row with its JSON decoded costs three times as much, and a question reads thousands.
    """
    return rows.annotate(**_TEXTS).values_list(*fields, *_TEXTS, *SUMMED)


def tallied(rows: QuerySet[Rollup], *fields: str) -> Iterator[tuple[tuple[Any, ...], Tally]]:
    """Each row's fields and its tally."""
    width = len(fields)
    for row in plain(rows, *fields):
        wait, run, *sums = row[width:]
        yield row[:width], Tally.of(sums, from_json(orjson.loads(wait)), from_json(orjson.loads(run)))


def carry(tallies: Tallies) -> None:
    """Add to the rows of their level, and to those of coarser levels that hold these rows already: steps that come late."""
    standing = marks()
    while tallies:
        ids = add(tallies)
        tallies = _late(tallies, ids, standing)


def _late(tallies: Tallies, ids: Mapping[Key, int], standing: Marks) -> Tallies:
    found: Tallies = {}
    for key, tally in tallies.items():
        coarse_s = coarser(key.step_s, key.tenant)
        # A row that is new has a higher id than those that are summed up.
        if coarse_s is not None and standing[coarse_s].holds(key.at, ids.get(key, _NEWEST)):
            found.setdefault(raised(key, coarse_s), Tally()).add(tally)
    return found


_NEWEST = 2**63


def raised(key: Key, coarse_s: int) -> Key:
    return key._replace(step_s=coarse_s, at=floor(key.at, coarse_s))


def add(tallies: Mapping[Key, Tally]) -> dict[Key, int]:
    """In the caller's transaction. Returns the ids of the rows that were there before."""
    ids: dict[Key, int] = {}
    keys = sorted(tallies)
    for start in range(0, len(keys), ROWS):
        ids |= _put([(key, tallies[key]) for key in keys[start : start + ROWS]])
    return ids


def _put(parts: Sequence[tuple[Key, Tally]]) -> dict[Key, int]:
    standing = _standing([key for key, _ in parts])
    fresh: list[Rollup] = []
    changed: list[Rollup] = []
    for key, tally in parts:
        if key in standing:
            row_id, sum_ = standing[key]
            sum_.add(tally)
            changed.append(_row(key, sum_, row_id))
        else:
            fresh.append(_row(key, tally, None))
    if fresh:
        Rollup.objects.bulk_create(fresh)
    if changed:
        _replace(changed)
    return {key: row_id for key, (row_id, _) in standing.items()}


def _replace(rows: Sequence[Rollup]) -> None:
    """An insert that always meets its row: a tenth of the text of an update with a CASE for each row and column."""
    unique = _KEY if connection.features.supports_update_conflicts_with_target else None
    Rollup.objects.bulk_create(
        rows, update_conflicts=True, update_fields=[*SUMMED, "wait", "run"], unique_fields=unique
    )


def _standing(keys: Sequence[Key]) -> dict[Key, tuple[int, Tally]]:
    spans = Q()
    for step_s in {key.step_s for key in keys}:
        of_step = [key for key in keys if key.step_s == step_s]
        spans |= Q(
            step_s=step_s,
            tenant__in={key.tenant for key in of_step},
            at__in={key.at for key in of_step},
            queue__in={key.queue for key in of_step},
            name__in={key.name for key in of_step},
        )
    wanted = set(keys)
    rows = Rollup.objects.select_for_update().filter(spans).order_by("id")
    return {
        key: (row_id, tally)
        for (row_id, *of), tally in tallied(rows, "id", *_KEY)
        if (key := Key(*of)) in wanted
    }


def _row(key: Key, tally: Tally, row_id: int | None) -> Rollup:
    sums = {name: getattr(tally, name) for name in SUMMED}
    return Rollup(id=row_id, **key._asdict(), **sums, wait=to_json(tally.wait), run=to_json(tally.run))


def sum_up(rows: Iterable[tuple[Key, Tally]], coarse_s: int) -> Tallies:
    """What rows of a finer level are in a coarser one."""
    found: Tallies = {}
    for key, tally in rows:
        found.setdefault(raised(key, coarse_s), Tally()).add(tally)
    return found
