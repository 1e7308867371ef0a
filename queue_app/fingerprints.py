"""What makes two failures the same one: the exception's type, its message without the parts that differ from job to job,
and where it was raised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

LENGTH = 16  # hex digits
_LONGEST = 500  # characters of a message; what follows is the data of one job
_VARIES = re.compile(
    r"""(?P<quoted>'[^']*'|"[^"]*")"""
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # a UUID
    r"|\b0x[0-9a-f]+\b"
    r"|\b(?=[a-z]*[0-9])[0-9a-f]{8,}\b"  # a hash, or an id of hex digits
    r"|\S+@\S+"
    r"|\d+",
    re.IGNORECASE,
)
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line \d+, in (?P<name>.+)$', re.MULTILINE)


def fingerprint(error: Mapping[str, Any] | None) -> str:
    """error: a job's `last_error`. Without line numbers: a release that moves the code keeps the group."""
    told = error or {}
    parts = (
        str(told.get("type", "")),
        normalised(str(told.get("message", ""))),
        frame(told.get("traceback")),
    )
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:LENGTH]


def normalised(message: str) -> str:
    """The message with a mark for each number, id, address and quoted value."""
    return " ".join(_VARIES.sub("#", message[:_LONGEST]).split())


def frame(traceback: Any) -> str:
    """File and function of the last frame; the path's last two parts, as hosts install in different places."""
    found = list(_FRAME.finditer(str(traceback or "")))
    if not found:
        return ""
    file = "/".join(found[-1]["file"].replace("\\", "/").split("/")[-2:])
    return f"{file}:{found[-1]['name'].strip()}"
