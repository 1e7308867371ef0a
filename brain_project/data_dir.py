"""The data directory of the embedded default: `.brain/` (0700), its secrets (0600) and the Valkey socket's path."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

# sun_path is 108 bytes on Linux, 104 on macOS, the final NUL included.
_LONGEST_SOCKET_PATH = 103


def make(path: Path) -> None:
    """The directory, readable by its owner alone. Raises ImproperlyConfigured when it cannot be made or written."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.getuid():
            path.chmod(0o700)
    except OSError as error:
        raise ImproperlyConfigured(_unwritable(path, error)) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(_unwritable(path, "no write permission"))


def _unwritable(path: Path, why: object) -> str:
    return f"The data directory {path} cannot be used ({why}): fix its permissions or set BRAIN_DATA_DIR."


def secret(path: Path) -> str:
    """The secret kept in `path` (0600), made on the first call. Two processes that race agree on one."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ImproperlyConfigured(_unwritable(path.parent, error)) from error
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as fresh:
        fresh.write(secrets.token_urlsafe(48))
    try:
        os.link(fresh.name, path)  # atomic, and fails where another process was first
    except FileExistsError:
        pass
    finally:
        os.unlink(fresh.name)
    return path.read_text().strip()


def refuse_missing(**values: str) -> None:
    """Production has no defaults. Raises ImproperlyConfigured that names every variable that is not set."""
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ImproperlyConfigured(
            f"BRAIN_ENV=production needs {', '.join(missing)}: set them in the environment (docs/production.md)."
        )
    for name in ("BRAIN_SECRET_KEY", "BRAIN_JWT_SECRET"):
        if len(values[name]) < 32 or values[name].startswith(("django-insecure", "your-secret")):
            raise ImproperlyConfigured(f"{name} is too weak for production: 32 random characters or more.")


def socket_path(data_dir: Path) -> Path:
    """Where the embedded Valkey listens; a short path elsewhere when the data directory's is too long for a socket."""
    direct = data_dir / "valkey" / "valkey.sock"
    if len(os.fsencode(direct)) <= _LONGEST_SOCKET_PATH:
        return direct
    key = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"brain-{os.getuid()}-{key}" / "valkey.sock"
