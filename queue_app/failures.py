"""What is told of an error: the row keeps the last one, all of it; each step of the history its own, in short.

Its words are a handler's, and may be anything: what is told can be stored by every database and written as UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

_MESSAGE = 500  # characters
_ON_THE_ROW = 1000
_TRACEBACK = 4096  # of its end, where the error is; a failed run has one more row of this size


def told(error: BaseException, traceback: str, *, path: str = "", max_bytes: int) -> dict[str, str]:
    """As `Job.last_error` has them: type, path of its class where given, message and the traceback's end."""
    parts = {"type": type(error).__name__, "path": path, "message": words(error)[:_ON_THE_ROW]}
    parts["traceback"] = traceback[-max_bytes:]
    return {key: clean(text) for key, text in parts.items() if text or key != "path"}


def words(error: BaseException) -> str:
    """What the exception says; nothing when its own code for it fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (somebody else's __str__)
        return ""


def reason(said: str) -> str:
    """A step's reason in somebody's words, as its history keeps it."""
    return clean(said[:_MESSAGE])


def clean(text: str) -> str:
    """`text` without what no database and no UTF-8 takes: NUL characters and halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def is_clean(text: object) -> TypeGuard[str]:
    """Whether it is a text that every database takes."""
    return isinstance(text, str) and clean(text) == text


def in_history(error: Mapping[str, str]) -> dict[str, str]:
    """error: type, message, traceback. As a JobEvent's detail has them."""
    told = {
        "error": error["type"],
        "message": error.get("message", "")[:_MESSAGE],
        "traceback": error.get("traceback", "")[-_TRACEBACK:],
    }
    return {key: value for key, value in told.items() if value}
