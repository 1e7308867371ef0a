"""POST to an address that somebody else chose: checked when it is connected to, redirects not followed, ended in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from foundation import outbound, url_guard


class Failed(Exception):
    """There was no answer. The message names no path, no header and no body."""


class Answer(NamedTuple):
    """retry_after: the header as it is, "" where there is none."""

    status: int
    retry_after: str


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
    """The head of the answer, whose body is not read. Raises Failed.

    timeout_s: to connect to each of its addresses, and again from then to the answer's head.
    """
    try:
        pinned = url_guard.check(url)
        with outbound.exchange(pinned, "POST", url, headers, body, timeout_s=timeout_s) as answer:
            return Answer(answer.status, answer.getheader("Retry-After", "").strip())
    except (url_guard.Refused, outbound.Failed) as error:
        raise Failed(str(error)) from error
