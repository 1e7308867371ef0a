"""What a cache remembers of keys that it does not hold, in a few bytes each: how often, and which left lately. Pure.

Hashes are those of str: 64 bits, well mixed, different in each process, so that nobody can choose keys that collide.
"""

from __future__ import annotations

from array import array

_HALVES = bytes(count >> 1 for count in range(256))
_MOST_COUNTERS = 2**22  # 4 MiB. A larger cache shares counters more, and is right less often


class Frequencies:
    """How often keys that are not held were used: a count-min sketch of two rows in one table.

    Only an eviction writes to it and only an insertion reads it: what is held counts for itself, exactly and without
    hashing.
    """

    def __init__(self, capacity: int) -> None:
        # Eight counters for each entry: with four, a scan's keys collide with enough others to be let in.
        width = _power_of_two(8 * capacity, _MOST_COUNTERS)
        self._mask = width - 1
        self._counts = bytearray(width)

    def of(self, hashed: int) -> int:
        counts, mask = self._counts, self._mask
        first, second = counts[hashed & mask], counts[(hashed >> 32) & mask]
        return first if first < second else second

    def raise_to(self, hashed: int, frequency: int) -> None:
        """frequency: 0 to 255. Lower counts of other keys in the same place are taken up with it."""
        counts, mask = self._counts, self._mask
        place = hashed & mask
        if counts[place] < frequency:
            counts[place] = frequency
        place = (hashed >> 32) & mask
        if counts[place] < frequency:
            counts[place] = frequency

    def halve(self) -> None:
        self._counts = self._counts.translate(_HALVES)  # at the speed of memory: no loop over the counters


class Latest:
    """The keys that were turned away lately. Two of one place push each other out: it is a sample."""

    def __init__(self, capacity: int) -> None:
        width = _power_of_two(2 * capacity, _MOST_COUNTERS // 8)
        self._mask = width - 1
        self._seen = array(
            "Q", bytes(8 * width)
        )  # 32 bits of the hash, 32 bits of the number of the rejection
        self._now = 0

    def add(self, hashed: int) -> None:
        self._now = (self._now + 1) & 0xFFFFFFFF
        self._seen[hashed & self._mask] = (hashed >> 32 & 0xFFFFFFFF) << 32 | self._now

    def has(self, hashed: int, span: int) -> bool:
        """Whether it was among the last `span`."""
        seen = self._seen[hashed & self._mask]
        # An empty place is 0: it looks like rejection 0 of a hash whose upper half is 0, one in 2^32.
        return seen >> 32 == hashed >> 32 & 0xFFFFFFFF and (self._now - seen & 0xFFFFFFFF) < span


class Favourites:
    """The most used among the keys that were turned away: what a main part larger by so many places would hold.

    A key that is used more often takes the place; one that is not wears the holder's count down by one.
    """

    def __init__(self, places: int) -> None:
        self._places = array("Q", bytes(8 * places))  # 56 bits of the hash, 8 bits of its count

    def add(self, hashed: int, frequency: int) -> None:
        place = hashed % len(self._places)
        held, mark = self._places[place], hashed << 8 & 0xFFFFFFFFFFFFFF00
        if held & 0xFFFFFFFFFFFFFF00 == mark or frequency > held & 0xFF:
            self._places[place] = mark | frequency
        elif held & 0xFF:
            self._places[place] = held - 1

    def has(self, hashed: int) -> bool:
        held = self._places[hashed % len(self._places)]
        return held & 0xFFFFFFFFFFFFFF00 == hashed << 8 & 0xFFFFFFFFFFFFFF00


def _power_of_two(wanted: int, most: int) -> int:
    return min(1 << max(wanted - 1, 1).bit_length(), most)
