"""The verbs of `manage.py cache` that change nothing: statistics, keys, one entry, a benchmark, the doctor."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any

from cache_app import browsing, doctor, measuring, operations, stats_store
from cache_app.tallies import Tally, by_alias
from foundation import figures, findings
from foundation.commands import FAILED, OK, USAGE, BrainCommand, Failed

from . import asking
from .asking import add_alias, answered, trace

_SHOWN = ("loads", "coalesced", "stale", "load_errors", "corrupt", "store_errors")
_MOST_S = 10.0  # of one operation of the benchmark


class LookingVerbs:
    def __init__(self, command: BrainCommand) -> None:
        self._command = command

    def define(self) -> None:
        stats = self._command.verb(
            "stats", self.stats, "Hits, misses, loads and latencies, of all processes. --reset begins anew."
        )
        stats.add_argument("--alias", help="of this alias alone")
        stats.add_argument("--reset", action="store_true", help="begin anew, for all aliases; audited")
        keys = self._command.verb(
            "keys", self.keys, "List keys. Example: manage.py cache keys 'user:*' --limit 20"
        )
        keys.add_argument("pattern", nargs="?", default="", help="a glob, or what keys begin with")
        keys.add_argument("--limit", type=asking.positive, default=100, help="(default 100)")
        add_alias(keys)
        get = self._command.verb("get", self.get, "One entry: what it says of itself, and its value.")
        get.add_argument("key")
        get.add_argument("--raw", action="store_true", help="do not mask secrets in the value")
        add_alias(get)
        self._bench(self._command.verb("bench", self.bench, "How fast the alias is as it is configured."))
        self._command.verb(
            "doctor", self.doctor, "What is wrong, and what to do. Exit code 1: errors, 3: warnings."
        )

    def _bench(self, parser: ArgumentParser) -> None:
        parser.add_argument("--seconds", type=_seconds, default=0.5, help="of each operation (default 0.5)")
        parser.add_argument("--bytes", type=asking.positive, default=100, help="of a value (default 100)")
        add_alias(parser)

    def stats(self, *, alias: str | None, reset: bool, **options: Any) -> None:
        if reset:
            self._reset(alias)
            return
        with answered():
            found = operations.statistics(alias or "")
        tallies = found.tallies
        self._command.line(_scope(found), style="dim")
        columns = [
            "alias",
            "namespace",
            "hit_ratio",
            "L1",
            "hits",
            "misses",
            "sets",
            *_SHOWN,
            "get_p50",
            "get_p99",
        ]
        rows = [[name, "(all)", *_row(tally)] for name, tally in by_alias(tallies).items()]
        rows += [[*key, *_row(tally)] for key, tally in sorted(tallies.items()) if key[1]]
        self._command.table(columns, rows)
        named = [
            {"alias": key[0], "namespace": key[1], **tally.document()}
            for key, tally in sorted(tallies.items())
        ]
        since = found.since.isoformat() if found.since else None
        self._command.document({"is_shared": found.is_shared, "since": since, "statistics": named})

    def _reset(self, alias: str | None) -> None:
        if alias:
            raise Failed("--reset is for all aliases", "Leave out --alias.", USAGE)
        with answered():
            operations.reset_statistics(**trace())
        self._command.line("the statistics begin anew")
        self._command.document({"reset": True})

    def keys(self, *, pattern: str, limit: int, alias: str, **options: Any) -> None:
        rows: list[browsing.Row] = []
        cursor, is_more = "", True
        with answered():
            cache = operations.cache_of(alias)
            while is_more and len(rows) < limit:
                found = browsing.page(cache, pattern, "", cursor, min(limit, browsing.LONGEST_PAGE))
                rows, cursor, is_more = rows + found.rows, found.cursor, bool(found.cursor)
        shown = rows[:limit]
        if not shown:
            self._command.line(f"no such key in {alias}" if pattern else f"{alias} has no keys")
            self._command.document([])
            return
        self._command.table(
            ["key", "ttl", "bytes", "codec"],
            [[row.key, _left(row), row.memory_bytes or row.size_bytes, row.codec] for row in shown],
        )
        if is_more or len(rows) > limit:
            self._command.line(f"… and more: say --limit, or a narrower pattern than {pattern or '*'!r}")
        self._command.document([row.document() for row in shown])

    def get(self, *, key: str, raw: bool, alias: str, **options: Any) -> int:
        with answered():
            found = browsing.look(operations.cache_of(alias), key, is_masked=not raw)
        if found is None:
            raise Failed(f"{alias} has no key {key!r}", "see: manage.py cache keys", FAILED)
        row, preview = found.row, found.preview
        facts = [
            ("ttl", _left(row)),
            ("bytes", row.size_bytes),
            ("codec", row.codec),
            ("took to load", figures.duration(found.load_s) if found.load_s else None),
            ("tags", ", ".join(f"{tag.name}{'' if tag.holds else ' (ended)'}" for tag in found.tags) or None),
            ("read as", "a hit" if found.is_served else "a miss"),
        ]
        self._command.table(["fact", "value"], [fact for fact in facts if fact[1] is not None])
        self._command.line(preview.text or preview.why)
        self._command.document({**found.document(), "value": preview.text, "why": preview.why})
        return OK

    def bench(self, *, alias: str, seconds: float, bytes: int, **options: Any) -> None:
        with answered():
            found = list(measuring.measure(operations.cache_of(alias), seconds=seconds, value_bytes=bytes))
        self._command.table(
            ["operation", "calls", "per_second", "p50_us", "p99_us", "from_memory"],
            [
                [
                    one.operation,
                    one.calls,
                    f"{one.rate:,.0f}",
                    f"{one.p50_s * 1e6:,.1f}",
                    f"{one.p99_s * 1e6:,.1f}",
                    None if one.l1_ratio is None else figures.share(one.l1_ratio),
                ]
                for one in found
            ],
        )
        self._command.document([asdict(one) for one in found])

    def doctor(self, **options: Any) -> int:
        found = doctor.examine()
        self._command.table(["level", "about", "told", "hint"], [list(finding) for finding in found])
        return findings.exit_code(found)


def _row(tally: Tally) -> list[Any]:
    took = tally.operations.get("get")
    times = (None, None) if took is None else (took.quantile(0.5), took.quantile(0.99))
    return [
        figures.share(tally.hit_ratio),
        figures.share(tally.l1_ratio),
        tally.hits,
        tally.of("misses"),
        tally.of("sets"),
        *(tally.of(event) for event in _SHOWN),
        *(None if seconds is None else f"{seconds * 1000:.2f} ms" for seconds in times),
    ]


def _scope(found: stats_store.Totals) -> str:
    if not found.is_shared:
        return "of this process alone: Redis does not answer, or the default cache is none"
    return "of all processes" + (f" since {found.since:%Y-%m-%d %H:%M:%S} UTC" if found.since else "")


def _left(row: browsing.Row) -> str | None:
    """What is left of its life."""
    if row.left_s is None:
        return None
    if math.isinf(row.left_s):
        return "for ever"
    return "over" if row.is_over else figures.duration(row.left_s)


def _seconds(text: str) -> float:
    found = asking.seconds(text)
    if found > _MOST_S:
        raise ArgumentTypeError(f"at most {_MOST_S:g}")
    return found
