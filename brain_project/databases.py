"""DATABASE_URL, DATABASE_URLS and DATABASE_REPLICA_URLS → Django's DATABASES."""

from __future__ import annotations

from collections.abc import Iterable

from orm_app.databases import BadURL, Entry, from_url, require_driver

Named = Iterable[tuple[str, str]]


def configured(default: str, others: Named, replicas: Named) -> dict[str, Entry]:
    """others, replicas: (name, URL); a replica's name is its primary's, "" for the default's. Raises BadURL, which says
    the variable.

    The replicas of `orders` are orders_replica1, orders_replica2 …
    """
    found = {"default": _entry("DATABASE_URL", default)}
    for name, url in others:
        if not name:
            raise BadURL("DATABASE_URLS: a URL has no name: write DATABASE_URLS=orders=postgres://…")
        if name in found:
            raise BadURL(f"DATABASE_URLS: there are two databases {name!r}")
        found[name] = _entry("DATABASE_URLS", url)
    counts: dict[str, int] = {}
    for name, url in replicas:
        primary = name or "default"
        counts[primary] = counts.get(primary, 0) + 1
        alias = f"{primary}_replica{counts[primary]}"
        if alias in found:
            raise BadURL(
                f"DATABASE_URLS: {alias!r} is what a replica of {primary!r} is called: choose another name"
            )
        found[alias] = _entry("DATABASE_REPLICA_URLS", url, primary)
    return found


def _entry(variable: str, url: str, replica_of: str | None = None) -> Entry:
    try:
        entry = from_url(url, replica_of)
        require_driver(entry)
    except BadURL as error:
        raise BadURL(f"{variable}: {error}") from error
    return entry
