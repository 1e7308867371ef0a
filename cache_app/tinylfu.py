"""W-TinyLFU: what is new waits in a window, and enters the main part when it is used more often than what it replaces.

    insert → window → (used more often than the oldest of probation?) → probation → (read) → protected → probation

After Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy" (2017). Two things differ.
Entries count their own hits, so that a hit costs no sketch. And the window's share follows every event that tells
which end should be longer, instead of climbing by periods of 10 × capacity requests: a working set that moves on is
over by then. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from .eviction import Entry, Segment
from .sketches import Favourites, Frequencies, Latest

# All by trial on the traces of benchmarks/cache/hit_ratio.py, where each stands on a plateau.
_MOST = 15  # counts end there: what was popular once is forgotten after four halvings
_PERIOD = 20  # requests per entry until every count is halved
_FIRST_SHARE = 0.4  # of the cache, for the window: from the middle it is not far to either end
_LEAST_SHARE, _MOST_SHARE = 0.01, 0.995
_STEP = 1 / 300  # of the cache, by which one event moves the window's end
_STEEPEST = 4.0  # of those steps at once, when probation is short
_FAVOURITE_STEP = 0.8  # of a step: with a whole one, a recency-heavy trace does not get quite to the top
_PROTECTED = 0.8  # of the main part
_SPAN = 5  # one in so many entries: how far behind each end is looked for what more room would have held
_WIDE = 0.5  # a share beside which probation is too short to tell what the main part is worth
_LARGE = 16  # a newcomer above 1/16 of the bytes has to win its place at once, or it would empty the window
_LEAST_ENTRY_BYTES = 256  # for the sketches: no more entries than this fit into max_bytes


class TinyLfu:
    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries, self._max_bytes = max_entries, max_bytes
        capacity = max(1, min(max_entries, max_bytes // _LEAST_ENTRY_BYTES))
        # Halving goes through all counts: not every few reads of a cache that is nearly empty.
        self._fewest = capacity // 64
        self._frequencies, self._latest = Frequencies(capacity), Latest(capacity // _SPAN)
        self._favourites: Favourites | None = None  # their number is known when the cache is full
        self._window, self._probation, self._protected = Segment(), Segment(), Segment()
        self._count = self.size_bytes = 0
        self._requests = self._inserted = self._age = 0
        self._move_to(_FIRST_SHARE)

    def __len__(self) -> int:
        return self._count

    def insert(self, entry: Entry) -> list[Entry]:
        self._count += 1
        self.size_bytes += entry.size_bytes
        self._meet(entry)
        gone: list[Entry] = []
        if entry.size_bytes > self._large_bytes:
            self._enter(entry, gone)
        else:
            self._window.push(entry)
        self._overflow(gone)
        return gone

    def resize(self, entry: Entry, size_bytes: int) -> list[Entry]:
        assert entry.segment is not None  # noqa: S101 - the store resizes what it holds
        self.size_bytes += size_bytes - entry.size_bytes
        entry.segment.resize(entry, size_bytes)
        self.read((entry,))
        gone: list[Entry] = []
        self._overflow(gone)
        return gone

    def read(self, entries: Collection[Entry]) -> None:
        age, probation = self._age, self._probation
        for entry in entries:
            segment = entry.segment
            if segment is None:
                continue
            if entry.age != age:
                self._frequency(entry)
            if entry.frequency < _MOST:
                entry.frequency += 1
            if segment is probation:
                self._promote(entry)
            else:
                segment.order.move_to_end(entry.key)
        self._requests += len(entries)

    def remove(self, entry: Entry) -> None:
        assert entry.segment is not None  # noqa: S101 - the store removes what it holds
        entry.segment.drop(entry)
        self._gone(entry)

    # --- frequencies -------------------------------------------------------------------------------------------------
    def _meet(self, entry: Entry) -> None:
        """A key comes (back): what is remembered of it."""
        self._inserted += 1
        self._requests += 1
        if self._requests >= _PERIOD * max(self._count, self._fewest):
            self._requests = 0
            self._age += 1
            self._frequencies.halve()
        hashed = hash(entry.key)
        entry.frequency = min(self._frequencies.of(hashed) + 1, _MOST)
        entry.age = self._age
        self._learn(hashed)

    def _frequency(self, entry: Entry) -> int:
        """As of now: what an entry counted is halved when somebody looks."""
        if entry.age != self._age:
            entry.frequency >>= self._age - entry.age
            entry.age = self._age
        return entry.frequency

    # --- the window's share ------------------------------------------------------------------------------------------
    def _learn(self, hashed: int) -> None:
        """From a miss: would a wider window have held this key, or else a larger main part?"""
        if self._latest.has(hashed, self._count // _SPAN):
            self._move(_STEP)
        elif self._share > _WIDE and self._favourites is not None and self._favourites.has(hashed):
            self._move(-_STEP * _FAVOURITE_STEP)

    def _learn_old(self) -> None:
        """From a hit in probation that no wider window would have had: the main part was worth its place.

        One place of probation was worth 1 / its length, one behind the window's end is worth 1 / span. Beside a wide
        window, the favourites tell instead.
        """
        if self._share <= _WIDE:
            worth = self._count / _SPAN / (len(self._probation) + 1)
            self._move(-_STEP * min(worth, _STEEPEST))

    def _move(self, step: float) -> None:
        self._move_to(max(_LEAST_SHARE, min(self._share + step, _MOST_SHARE)))

    def _move_to(self, share: float) -> None:
        self._share = share
        self._window_entries, self._window_bytes = share * self._max_entries, share * self._max_bytes
        self._large_bytes = max(self._window_bytes, self._max_bytes / _LARGE)
        share = _PROTECTED * (1 - share)
        self._protected_entries, self._protected_bytes = share * self._max_entries, share * self._max_bytes

    # --- places ------------------------------------------------------------------------------------------------------
    def _promote(self, entry: Entry) -> None:
        self._probation.drop(entry)
        self._protected.push(entry)
        if self._inserted - entry.entered > self._count // _SPAN:
            self._learn_old()
        protected = self._protected
        while len(protected.order) > self._protected_entries or protected.size_bytes > self._protected_bytes:
            demoted = protected.pop_oldest()
            demoted.entered = -self._max_entries  # its last use is long past
            self._probation.push(demoted)

    def _overflow(self, gone: list[Entry]) -> None:
        """The window sends on what it has no room for, the main part gives up its weakest. gone: what left the cache."""
        while self._is_window_over():
            self._enter(self._window.pop_oldest(), gone)
        while self._is_over():
            gone.append(self._evict(self._weakest() or self._window))

    def _is_window_over(self) -> bool:
        count, size_bytes = len(self._window.order), self._window.size_bytes
        if count <= 1:  # the last one to come stays, however narrow the window is
            return size_bytes > self._large_bytes
        return count > self._window_entries or size_bytes > self._window_bytes

    def _is_over(self) -> bool:
        return self._count > self._max_entries or self.size_bytes > self._max_bytes

    def _enter(self, candidate: Entry, gone: list[Entry]) -> None:
        """From the window into probation, in the place of those that are used less often than it is."""
        while self._is_over():
            weakest = self._weakest()
            if weakest is None or self._frequency(candidate) <= self._frequency(weakest.oldest()):
                self._turn_away(candidate)
                gone.append(candidate)
                return
            gone.append(self._evict(weakest))
        candidate.entered = self._inserted
        self._probation.push(candidate)

    def _weakest(self) -> Segment | None:
        """Whose oldest entry is the next to go."""
        if self._probation.order:
            return self._probation
        return self._protected if self._protected.order else None

    def _turn_away(self, candidate: Entry) -> None:
        hashed = hash(candidate.key)
        self._latest.add(hashed)
        if self._share > _WIDE:
            if self._favourites is None:
                self._favourites = Favourites(max(1, self._count // _SPAN))
            self._favourites.add(hashed, self._frequency(candidate))
        self._gone(candidate)

    def _evict(self, segment: Segment) -> Entry:
        entry = segment.pop_oldest()
        self._gone(entry)
        return entry

    def _gone(self, entry: Entry) -> None:
        self._count -= 1
        self.size_bytes -= entry.size_bytes
        self._frequencies.raise_to(hash(entry.key), self._frequency(entry))
