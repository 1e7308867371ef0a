"""What is cached in the measurements: about 100 bytes and about 10 kB of JSON."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "id": 4711,
    "name": "Ada Lovelace",
    "email": "ada@example.com",
    "tags": ["a", "b"],
    "ok": True,
}
LARGE: list[dict[str, Any]] = [
    {
        "id": number,
        "name": f"Person {number}",
        "email": f"person{number}@example.com",
        "score": number / 7,
        "ok": True,
    }
    for number in range(100)
]
OF_SIZE: dict[str, Any] = {"100B": SMALL, "10kB": LARGE}
KEYS = 64  # in turn, so that no layer sees only one
MANY = 20
