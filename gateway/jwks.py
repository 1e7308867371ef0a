"""The keys of an issuer that publishes them at a URL, kept up to date behind the requests.

    token → checks(kid), at once, with the keys that are known → and, where it is time, a fetch in a thread

A token whose kid is unknown is refused; the fetch that it sets off lets the next one in.
"""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog

from foundation import outbound, url_guard

from . import jwk
from .signatures import Check

log = structlog.get_logger(__name__)

MAX_DOCUMENT_BYTES = 65_536
TIMEOUT_S = 5.0
FRESH_S, MIN_FRESH_S, MAX_FRESH_S = 300.0, 60.0, 3600.0  # without Cache-Control, and what it may ask for
RETRY_S = 30.0  # after a fetch that failed
FIRST_RETRY_S = (
    1.0  # while there are no keys yet, then doubled each time: until then all its tokens are refused
)
UNKNOWN_KID_S = 30.0  # strangers make up kids: they set off one fetch in so long
MAX_AGE_S = 86_400.0  # an issuer that cannot be reached for so long is no longer trusted

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])", re.IGNORECASE)


class Unusable(Exception):
    """There was no document. The message names no path."""


@dataclass(frozen=True, slots=True)
class Status:
    """For the admin. Times in seconds since the epoch; fetched_at: of the document in use, None: there is none.

    error: of the last fetch, "" for a good one. ignored: keys that are not used, and why.
    """

    url: str
    fetched_at: float | None
    next_at: float
    error: str
    kids: tuple[str, ...]
    ignored: tuple[str, ...]


def check_url(url: str, resolve: url_guard.Resolve = url_guard.resolve_by_system) -> url_guard.Pinned:
    """Raises url_guard.Refused (a ValueError), also for http to the internet: whoever is on the way could put in
    keys of his own. Blocks while it resolves."""
    pinned = url_guard.check(url, resolve=resolve)
    if pinned.scheme != "https" and any(ipaddress.ip_address(one).is_global for one in pinned.addresses):
        raise url_guard.Refused("keys come over https, except from loopback and private addresses")
    return pinned


def fetch(url: str) -> tuple[bytes, float]:
    """The document, and for how many seconds it is fresh. Raises Unusable. Blocks for up to TIMEOUT_S, twice."""
    try:
        pinned = check_url(url)
        headers = {"Accept": "application/jwk-set+json, application/json"}
        with outbound.exchange(pinned, "GET", url, headers, timeout_s=TIMEOUT_S) as answer:
            if answer.status != 200:
                raise Unusable(f"the answer's status is {answer.status}")
            document = answer.read(MAX_DOCUMENT_BYTES + 1)
            missing_bytes = answer.length
            fresh_s = fresh_for_s(answer.headers.get("Cache-Control", ""))
    except (url_guard.Refused, outbound.Failed) as error:
        raise Unusable(str(error)) from error
    if len(document) > MAX_DOCUMENT_BYTES:
        raise Unusable(f"the document is longer than {MAX_DOCUMENT_BYTES} bytes")
    if missing_bytes:
        raise Unusable("the document broke off")
    return document, fresh_s


def fresh_for_s(cache_control: str) -> float:
    asked = _MAX_AGE.search(cache_control)
    return min(max(float(asked[1]), MIN_FRESH_S), MAX_FRESH_S) if asked else FRESH_S


def in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="jwks", daemon=True).start()


class Jwks:
    """One URL for one algorithm. Make it once, start it with `keep_fresh`, and let every snapshot's Issuer hold
    it as its source.

    fetch: url → document and seconds; raises Unusable. clock: monotonic; wall: since the epoch, for `status`.
    start: runs a function elsewhere. All in seconds.
    """

    def __init__(
        self,
        url: str,
        algorithm: str,
        *,
        fetch: Callable[[str], tuple[bytes, float]] = fetch,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,  # noqa: TID251  (dates for people)
        start: Callable[[Callable[[], None]], None] = in_thread,
    ) -> None:
        self.url, self.algorithm = url, algorithm
        self._fetch, self._clock, self._wall, self._start = fetch, clock, wall, start
        self._guard = threading.Lock()
        self._fetching = False
        self._keys = jwk.KeySet({})
        self._fetched_at: float | None = None
        self._next_at = self._unknown_at = clock()
        self._error = ""
        self._tries = 0  # that failed before the first keys

    def checks(self, kid: str | None) -> Sequence[Check]:
        """By the keys that a token with this kid may be signed with; None: by any. Never waits."""
        now = self._clock()
        if now >= self._next_at:
            self._begin()
        if self._fetched_at is None or now - self._fetched_at >= MAX_AGE_S:
            return ()
        if kid is not None and kid not in self._keys.by_kid and now >= self._unknown_at and self._begin():
            self._unknown_at = now + UNKNOWN_KID_S
        return self._keys.of(kid)

    def keep_fresh(self) -> None:
        """Start a fetch if it is time. For pollers: without one, the first token after a while sees to it."""
        if self._clock() >= self._next_at:
            self._begin()

    def status(self) -> Status:
        ahead_s = self._wall() - self._clock()
        fetched_at = self._fetched_at
        return Status(
            url=self.url,
            fetched_at=None if fetched_at is None else fetched_at + ahead_s,
            next_at=self._next_at + ahead_s,
            error=self._error,
            kids=tuple(self._keys.by_kid),
            ignored=self._keys.ignored,
        )

    def _begin(self) -> bool:
        """False: one is under way."""
        with self._guard:
            if self._fetching:
                return False
            self._fetching = True
        try:
            self._start(self._refresh)
        except RuntimeError as error:  # no thread to be had; a request must not fail for it
            self._failed(str(error))
            self._fetching = False
        return True

    def _refresh(self) -> None:
        self._next_at = self._clock() + RETRY_S
        try:
            document, fresh_s = self._fetch(self.url)
            keys = jwk.parse(document, self.algorithm)
        except (Unusable, ValueError) as error:
            self._failed(str(error))
        else:
            self._keys, self._error = keys, ""
            self._fetched_at = self._clock()
            self._next_at = self._fetched_at + fresh_s
        finally:
            self._fetching = False

    def _retry_s(self) -> float:
        if self._fetched_at is not None:
            return RETRY_S
        self._tries += 1
        return min(RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._tries - 1, 10))

    def _failed(self, error: str) -> None:
        """The last good keys stay in use until they are MAX_AGE_S old."""
        self._error = error
        self._next_at = self._clock() + self._retry_s()
        log.warning("jwks_kept", host=urlsplit(self.url).hostname, error=error)
