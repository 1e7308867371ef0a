"""Who holds and who waits for which names, in files that processes share: one step at a time, all or nothing.

A file has two halves, and a step writes the older one: a process that is killed in the middle leaves the newer one as
it was. Replacing the file by rename does the same, but ext4 then writes it to the disk, which takes milliseconds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import orjson

from .lock_rules import Turns

_HEADER = struct.Struct(
    ">4sQII"
)  # sign, number of the step, length of what follows, CRC-32 of both and of that
_SIGN = b"BLK1"
_HALF_BYTES = 2**20  # where the second one begins; what lies between takes no room on the disk
_FIRST_READ = 4096
_STEP_S = 2.0  # a process that was stopped in the middle of a step would hold up the others for ever
_OPENING = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC


@dataclass(slots=True)
class Page:
    """The names that share a file. fence: the last one of any of them."""

    fence: int = 0
    names: dict[str, Turns] = field(default_factory=dict)

    def encoded(self, now: float) -> bytes:
        kept = {
            name: [turns.owner, turns.ends, turns.fence, turns.queue, turns.told, turns.told_at]
            for name, turns in self.names.items()
            if turns.queue or turns.is_held(now)
        }
        return orjson.dumps([self.fence, kept])

    @classmethod
    def decoded(cls, text: bytes) -> Page:
        """An empty page for what cannot be read: the fence goes on from the clock."""
        try:
            fence, names = orjson.loads(text)
            return cls(fence, {name: Turns(*fields) for name, fields in names.items()})
        except (ValueError, TypeError, AttributeError):
            return cls()


@contextlib.contextmanager
def step(path: str, clock: Callable[[], float]) -> Iterator[Page]:
    """The page, for one step: nobody else reads or writes it meanwhile. Raises OSError, FileNotFoundError."""
    opened = os.open(path, _OPENING, 0o600)
    try:
        _lock(opened)
        number, text = _read(opened)
        page = Page.decoded(text)
        yield page
        new = page.encoded(clock())
        if new != text:
            _write(opened, number + 1, new)
    finally:
        os.close(opened)


def _lock(opened: int) -> None:
    pause_s, waited_s = 0.0002, 0.0
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if waited_s >= _STEP_S:
                raise TimeoutError(
                    errno.ETIMEDOUT, "a process stands still in the middle of a step"
                ) from None
        time.sleep(pause_s)
        waited_s, pause_s = waited_s + pause_s, min(pause_s * 1.5, 0.005)


def _read(opened: int) -> tuple[int, bytes]:
    """The number and the text of the newer half that is whole; (0, b"") where neither is."""
    return max(_half(opened, 0), _half(opened, _HALF_BYTES), key=lambda half: half[0])


def _half(opened: int, offset: int) -> tuple[int, bytes]:
    found = os.pread(opened, _FIRST_READ, offset)
    if len(found) < _HEADER.size:
        return 0, b""
    sign, number, length, crc = _HEADER.unpack_from(found)
    text = found[_HEADER.size : _HEADER.size + length]
    if len(text) < length <= _HALF_BYTES - _HEADER.size:
        text += os.pread(opened, length - len(text), offset + len(found))
    is_whole = sign == _SIGN and len(text) == length and _crc(number, text) == crc
    return (number, text) if is_whole else (0, b"")


def _write(opened: int, number: int, text: bytes) -> None:
    half = _HEADER.pack(_SIGN, number, len(text), _crc(number, text)) + text
    if len(half) > _HALF_BYTES:
        raise OSError(errno.EFBIG, "too many wait for the locks of one file")
    if os.pwrite(opened, half, number % 2 * _HALF_BYTES) < len(half):
        raise OSError(errno.ENOSPC, "the disk took only a part")


def _crc(number: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(struct.pack(">QI", number, len(text))))
