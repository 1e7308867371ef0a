"""The engines' own programs: found, new enough, started with their secrets in files that only we can read."""

from __future__ import annotations

import contextlib
import copy
import glob
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from .files import Progress
from .manifest import BackupFailed

_ELSEWHERE = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/*/bin",
    "/usr/local/opt/*/bin",
)
_CHUNK_BYTES = 1 << 18
_SAID_BYTES = 2000
_LOGIN = "brain-client-"


def own_connection(connection: Any, name: str | None = None) -> Any:
    """One of our own with the alias's settings, beside its pool. name: another database of the server."""
    settings = copy.deepcopy(connection.settings_dict)
    settings["OPTIONS"].pop("pool", None)
    # A replica's or a pooler's limits on a statement are not meant for a backup.
    settings["NAME"] = name or settings["NAME"]
    return type(connection)(settings, f"{connection.alias}.backup")


@contextlib.contextmanager
def opened(connection: Any, name: str | None = None) -> Iterator[Any]:
    made = own_connection(connection, name)
    try:
        yield made
    finally:
        made.close()


def find(names: Sequence[str], *, at_least: int = 0, package: str) -> str:
    """The path of the first of `names` whose major version is at least that. Raises BackupFailed."""
    found: dict[str, int] = {}
    for path in _candidates(names):
        found[path] = major(path) if at_least else 0
        if found[path] >= at_least:
            return path
    if not found:
        raise BackupFailed(f"{names[0]} is not installed", f"Install {package}.")
    newest = max(found, key=lambda path: found[path])
    raise BackupFailed(
        f"{newest} is version {found[newest]}, older than the server's {at_least}: it cannot dump or restore it",
        f"Install {package} of version {at_least} or newer.",
    )


def _candidates(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        first = shutil.which(name)
        if first:
            yield first
    for name in names:
        for place in _ELSEWHERE:
            yield from (
                path
                for path in sorted(glob.glob(f"{place}/{name}"), reverse=True)
                if os.access(path, os.X_OK)
            )


def version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or said.stderr.strip()


def major(program: str) -> int:
    """Of a PostgreSQL program."""
    found = re.search(r"\) (\d+)", version(program))
    return int(found[1]) if found else 0


@contextlib.contextmanager
def secret_file(text: str) -> Iterator[Path]:
    """A file with `text` (0600) while the block runs. Those of processes that were killed in it go now."""
    _remove_of_the_dead()
    file, name = tempfile.mkstemp(prefix=f"{_LOGIN}{os.getpid()}-")  # made 0600
    try:
        with os.fdopen(file, "w") as out:
            out.write(text)
        yield Path(name)
    finally:
        os.unlink(name)


def _remove_of_the_dead() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_LOGIN}*"):
        pid = path.name.removeprefix(_LOGIN).partition("-")[0]
        with contextlib.suppress(OSError):  # another user's
            if pid.isdigit() and not _is_alive(int(pid)):
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def environment(**more: str) -> dict[str, str]:
    """A child's: ours, without passwords of another database that were exported, and with `more`."""
    ours = {name: text for name, text in os.environ.items() if name not in ("PGPASSWORD", "MYSQL_PWD")}  # noqa: TID251
    return ours | more


class Child:
    """A program while the block runs: killed when it raises, and its complaint is the error when it fails."""

    def __init__(self, command: Sequence[str], **how: Any) -> None:
        self.name = os.path.basename(command[0])
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody empties would stop it)
        try:
            given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": environment()} | how
            self.process: subprocess.Popen[bytes] = subprocess.Popen(command, stderr=self._said, **given)
        except OSError as error:
            self._said.close()
            raise BackupFailed(f"{command[0]} cannot be started: {error.strerror}") from error

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what it did not read before it ended
                    pipe.close()
        self.process.wait()
        self._said.close()

    def finish(self) -> None:
        """Raises BackupFailed when it failed."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        code = self.process.wait()
        if code:
            raise BackupFailed(f"{self.name} failed ({code}): {self.said() or 'it said nothing'}")

    def said(self) -> str:
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _SAID_BYTES))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return " ".join(line.strip() for line in lines[-4:] if line.strip())


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    read: Any = getattr(file, "read1", file.read)
    while chunk := read(_CHUNK_BYTES):
        yield chunk


class Writer:
    """A file that is written, its digest and size on the way; gzipped where wanted."""

    def __init__(self, path: Path, progress: Progress, *, is_gzip: bool = False) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._progress = progress
        self.size = 0
        # mtime 0: the same dump gives the same bytes. Level 3: the dump is not slower than the server gives it.
        self._gzip = gzip.GzipFile("", "wb", 3, self, mtime=0) if is_gzip else None

    def add(self, chunk: bytes) -> None:
        if self._gzip is not None:
            self._gzip.write(chunk)
        else:
            self.write(chunk)

    def write(self, chunk: bytes) -> int:
        """To the file itself; gzip's side."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
        self._progress("dumping", self.size, None)
        return len(chunk)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        try:
            if self._gzip is not None:
                gzipped, self._gzip = self._gzip, None
                gzipped.close()
        finally:
            self._file.close()

    def sha256(self) -> str:
        return self._digest.hexdigest()
