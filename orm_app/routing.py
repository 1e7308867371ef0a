"""Where a model lives, and what may be migrated where: what DATABASES and `APPS` say, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT = "default"
MIRRORED = "IS_TEST_MIRROR"  # in an entry of DATABASES: tests have made it a mirror of its primary, and it gets no reads
_MONGODB = "django_mongodb_backend"


@dataclass(frozen=True, slots=True)
class Topology:
    """A cluster goes by its primary's alias.

    homes: app label → cluster. primaries: replica → its primary. replicas: primary → its replicas. dedicated: clusters
    that hold the apps mapped to them and nothing else.
    """

    homes: Mapping[str, str]
    primaries: Mapping[str, str]
    replicas: Mapping[str, tuple[str, ...]]
    dedicated: frozenset[str]


def topology(databases: Mapping[str, Mapping[str, Any]], apps: Mapping[str, str]) -> Topology:
    """databases: as DATABASES. What is wrong in them is the system checks' to say."""
    primaries = {alias: entry["REPLICA_OF"] for alias, entry in databases.items() if entry.get("REPLICA_OF")}
    reading = [alias for alias in primaries if not databases[alias].get(MIRRORED)]
    replicas = {
        primary: tuple(alias for alias in reading if primaries[alias] == primary)
        for primary in map(primaries.__getitem__, reading)
        if primary in databases
    }
    # Django's own apps have integer keys, and relations that no document database follows.
    documents = {alias for alias, entry in databases.items() if entry.get("ENGINE") == _MONGODB}
    return Topology(apps, primaries, replicas, frozenset({*apps.values(), *documents} - {DEFAULT}))


def cluster(known: Topology, app: str, near: tuple[str, str] | None = None) -> str | None:
    """Of a model's app; None: nobody has said where, so Django's own rule holds.

    near: app and alias of an instance that the model is read or written for. A row stays where it was read from, and so
    do its relatives.
    """
    home = known.homes.get(app)
    if near is None:
        return home
    if known.homes.get(near[0]) == home:
        return known.primaries.get(near[1], near[1])
    return home or DEFAULT


def may_migrate(known: Topology, alias: str, app: str) -> bool | None:
    """None: nothing speaks against it."""
    if alias in known.primaries:
        return False
    home = known.homes.get(app)
    if home is not None:
        return alias == home
    return False if alias in known.dedicated else None


def may_relate(known: Topology, one: str | None, other: str | None) -> bool:
    """one, other: aliases that two rows are in."""
    return known.primaries.get(one or "", one) == known.primaries.get(other or "", other)
