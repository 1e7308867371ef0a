"""What is told of an error: the row keeps the last one, all of it; each step of the history its own, in short."""

from __future__ import annotations

from collections.abc import Mapping

_MESSAGE = 500  # characters
_TRACEBACK = 4096  # of its end, where the error is; a failed run has one more row of this size


def in_history(error: Mapping[str, str]) -> dict[str, str]:
    """error: type, message, traceback. As a JobEvent's detail has them."""
    told = {
        "error": error["type"],
        "message": error.get("message", "")[:_MESSAGE],
        "traceback": error.get("traceback", "")[-_TRACEBACK:],
    }
    return {key: value for key, value in told.items() if value}
