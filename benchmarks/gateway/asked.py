"""The requests of a run as a file for the load generators: a line is `path token` or `path token number`, taken in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import credentials

ROUTES = 50
DISTINCT_TOKENS = 40_000  # taken in turn: four times what our cache of verified tokens holds
DIFFERING = 10_000  # requests with a header of their own, taken in turn; the answers have one too
WHO = "/whoami"  # the upstream's answer to it is the port it came in by


def prefix(number: int) -> str:
    return f"/api/v1/service{number}"


def paths(count: int = ROUTES) -> list[str]:
    """One below each of the first `count` routes."""
    return [f"{prefix(number)}/items/12345" for number in range(count)]


def write(path: Path, paths: Sequence[str], tokens: Sequence[str]) -> Path:
    """As many lines as the longer one has; the shorter one is repeated."""
    lines = max(len(paths), len(tokens))
    path.write_text("".join(f"{paths[n % len(paths)]} {tokens[n % len(tokens)]}\n" for n in range(lines)))
    return path


def same_token(path: Path) -> Path:
    return write(path, paths(), [credentials.token()])


def distinct_tokens(path: Path) -> Path:
    return write(path, paths(), [credentials.token(number=n) for n in range(DISTINCT_TOKENS)])


def differing(path: Path) -> Path:
    """One token, and a header that is never the same as in the request before."""
    token = credentials.token()
    lines = (f"{prefix(n % ROUTES)}/differing {token} {n:06d}\n" for n in range(DIFFERING))
    path.write_text("".join(lines))
    return path
