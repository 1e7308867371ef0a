"""What the verbs of `manage.py cache` have alike: which alias, who acts, and how a failure is told."""

from __future__ import annotations

import getpass
import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

from cache_app import operations
from cache_app.codec import Uncacheable
from foundation.commands import USAGE, Failed


def add_alias(parser: ArgumentParser) -> None:
    parser.add_argument("--alias", default="default", help="of CACHES (default: default)")


def name(text: str) -> str:
    """argparse's type of a tag and of a namespace."""
    if not text.strip():
        raise ArgumentTypeError("a name has at least one character")
    return text


def positive(text: str) -> int:
    """argparse's type of a count."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    """argparse's type of a duration."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return found


def trace() -> dict[str, str]:
    """As `audit.by`."""
    return {"actor": getpass.getuser(), "source": "cli"}


@contextmanager
def answered() -> Iterator[None]:
    """What a store or a name fails with, in one line with a hint."""
    try:
        with operations.asking():
            yield
    except operations.CacheUnavailable as error:
        hint = "Look at LOCATION and REDIS_URL, or start the server with `./brain up`."
        raise Failed(f"the cache does not answer: {error}", hint) from error
    except operations.UnknownAlias as error:
        raise Failed(str(error), "see: manage.py cache doctor", USAGE) from error
    except Uncacheable as error:
        raise Failed(f"the alias cannot store this value: {error}", "", USAGE) from error
