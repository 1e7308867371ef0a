"""Names looked up for the checks at save: together, for a second or two and no longer, before anything is locked.

    ahead(urls) → a thread for each of a few names at once → addresses(host, port), from memory

A name that did not answer is as if it had no address: its target is down today, and the address that is connected to
is checked again.
"""

from __future__ import annotations

import ipaddress
import queue
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from foundation import url_guard

TOGETHER_S = 2.0  # for all names of one change
REMEMBERED_S = 60.0  # longer than a change waits for the configuration's lock
MOST_REMEMBERED = 10_000
THREADS = 32
_PORTS = {"http": 80, "https": 443}

Name = tuple[str, int]  # host and port
Resolve = Callable[[str, int], Iterable[str]]


class Lookups:
    """resolve: may take long, and raises url_guard.Refused for a name without an address."""

    def __init__(
        self, resolve: Resolve = url_guard.resolve_by_system, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolve, self._clock = resolve, clock
        self._known: dict[Name, tuple[float, tuple[str, ...]]] = {}  # and when it was looked up

    def ahead(self, urls: Iterable[str], within_s: float = TOGETHER_S) -> None:
        """Look up what is not known of these URLs' names. Blocks, for within_s at most."""
        now = self._clock()
        wanted = {name for url in urls if (name := _name(url)) and not self._is_fresh(name, now)}
        if not wanted:
            return
        if len(self._known) + len(wanted) > MOST_REMEMBERED:
            self._known.clear()
        # What is not back in time is remembered as such, so that the check itself does not wait for it again.
        self._known |= dict.fromkeys(wanted, (now, ()))
        waiting: queue.SimpleQueue[Name | None] = queue.SimpleQueue()
        for name in wanted:
            waiting.put(name)
        threads = [
            threading.Thread(target=self._work, args=(waiting,), name="gateway-lookups", daemon=True)
            for _ in range(min(THREADS, len(wanted)))
        ]
        for thread in threads:
            waiting.put(None)
            thread.start()
        deadline = now + within_s
        for thread in threads:
            thread.join(max(0.0, deadline - self._clock()))

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """What is known of the name, looked up now if need be; empty where it has none."""
        name = host.lower(), port
        if not self._is_fresh(name, self._clock()):
            self.ahead([f"http://{host}:{port}"])
        return self._known.get(name, (0.0, ()))[1]

    def _is_fresh(self, name: Name, now: float) -> bool:
        known = self._known.get(name)
        return known is not None and now - known[0] < REMEMBERED_S

    def _work(self, waiting: queue.SimpleQueue[Name | None]) -> None:
        while (name := waiting.get()) is not None:
            try:
                found = tuple(self._resolve(*name))
            except url_guard.Refused:
                found = ()
            self._known[name] = self._clock(), found


def _name(url: str) -> Name | None:
    """None: there is nothing to look up."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        return None
    host = parts.hostname
    if not host or _is_address(host):
        return None
    return host, port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_lookups = Lookups()
ahead, addresses = _lookups.ahead, _lookups.addresses
