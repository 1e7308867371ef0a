"""The directory of a file cache: nobody's but ours, with one index that counts and the files of big values.

LOCATION/v1/index → index-<generation>.sqlite3    LOCATION/v1/ab/abcd….value    LOCATION/v1/recovery.lock
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator

import structlog
from django.core.exceptions import ImproperlyConfigured

log = structlog.get_logger(__name__)

FORMAT = "v1"  # two versions of the code that store differently do not read each other's files
_SUFFIX = ".value"
_ASK_EVERY_S = 0.01


class Directory:
    """Paths below LOCATION. Only `files` and `clean` list anything, and only a recovery calls them."""

    def __init__(self, location: str) -> None:
        self.location = os.path.abspath(location)
        self.folder = os.path.join(self.location, FORMAT)
        self.pointer = os.path.join(self.folder, "index")

    def check(self) -> None:
        """Raises ImproperlyConfigured for what no waiting cures. What the disk refuses just now, each call will say."""
        try:
            self.make()
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise ImproperlyConfigured(
                f"{self.location} cannot be made: {error}. Hint: LOCATION of a file cache is a directory of its own, "
                "below one in which this process may write."
            ) from error
        except OSError as error:
            log.warning("cache_directory_missing", path=self.location, error=str(error))

    def make(self) -> None:
        """Raises ImproperlyConfigured for a directory that others can read or own, OSError where the disk refuses."""
        for path in (self.location, self.folder):
            os.makedirs(path, mode=0o700, exist_ok=True)
            _refuse_what_others_reach(path)

    # --- files of big values -----------------------------------------------------------------------------------------
    def new_file(self, digest: int) -> str:
        """A name that was never used: what replaces a value never writes over it."""
        return f"{digest & (2**64 - 1):016x}{secrets.token_hex(8)}{_SUFFIX}"

    def path(self, file: str) -> str:
        return f"{self.folder}/{file[:2]}/{file}"

    def files(self) -> Iterator[str]:
        """The names of all files of values, of half-written ones too."""
        for name in os.listdir(self.folder):
            if len(name) == 2:
                yield from os.listdir(os.path.join(self.folder, name))

    # --- generations of the index ------------------------------------------------------------------------------------
    def inode(self) -> int:
        """Of the index that counts. Raises FileNotFoundError where somebody has removed it."""
        return os.stat(self.pointer).st_ino

    def index(self) -> str:
        return os.path.join(self.folder, os.readlink(self.pointer))

    def new_index(self) -> str:
        """The path of an empty file for another generation.

        Never the old name again: a process that still has the old index open removes its write-ahead log by name.
        """
        path = os.path.join(self.folder, f"index-{secrets.token_hex(8)}.sqlite3")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return path

    def point_to(self, path: str) -> None:
        """From now on this index counts, for every process."""
        made = f"{self.pointer}-new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        os.symlink(os.path.basename(path), made)
        os.replace(made, self.pointer)

    def clean(self) -> None:
        """Remove the indexes that do not count any more."""
        counts = os.path.basename(os.readlink(self.pointer))
        for name in os.listdir(self.folder):
            if name.startswith("index-") and not name.startswith(counts):
                os.unlink(os.path.join(self.folder, name))

    @contextlib.contextmanager
    def recovering(self, wait_s: float) -> Iterator[None]:
        """One process at a time; raises TimeoutError. The kernel lets go of it for a process that dies."""
        opened = os.open(
            os.path.join(self.folder, "recovery.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
        )
        try:
            _lock(opened, time.monotonic() + wait_s)
            yield
        finally:
            os.close(opened)


def boot() -> str:
    """Which run of the machine this is; "" where that is not told. The same for as long as its memory lives."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as told:
            return told.read().strip()
    except OSError:
        return ""


def _lock(opened: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, "another process is recovering the cache's index"
                ) from None
            time.sleep(_ASK_EVERY_S)


def _refuse_what_others_reach(path: str) -> None:
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise ImproperlyConfigured(
            f"{path} is no directory. Hint: LOCATION of a file cache is one of its own."
        )
    if found.st_uid != os.geteuid():
        raise ImproperlyConfigured(
            f"{path} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}. "
            "Hint: whoever owns it could read and change what is cached; give each user a LOCATION of its own."
        )
    if found.st_mode & 0o077:
        _tighten(path, stat.S_IMODE(found.st_mode))


def _tighten(path: str, mode: int) -> None:
    # As root, LOCATION = "/tmp" would otherwise lock everybody else out of it.
    if os.listdir(path) and not os.path.exists(os.path.join(path, FORMAT)):
        raise ImproperlyConfigured(
            f"{path} is open to other users (mode {mode:04o}) and holds something that is no cache. "
            "Hint: LOCATION of a file cache is a directory of its own, with mode 0700."
        )
    os.chmod(path, 0o700)
    log.warning("cache_directory_tightened", path=path, mode=f"{mode:04o}")
