"""The Lua scripts, and the key schema they share.

Keys, all with `global_keyprefix` in front; the first four are stock Kombu's and mean the same to it:

    <queue>                      list: messages of the most urgent priority step, next one rightmost
    <queue>\\x06\\x16<step>        list: messages of each further step (3, 6, 9)
    unacked                      hash: delivery tag → JSON [envelope, exchange, routing key]
    unacked_index                sorted set: delivery tag by the time it was claimed or renewed, seconds since 1970
    <queue>\\x06\\x16wake          list of 0 or 1 token: popping it wakes one idle consumer; losing it costs a second
    brain.parked                 list: envelopes nobody can read, newest first, at most 1000
    brain.parked_counts          hash: queue → envelopes parked since ever
    brain.given_up               list: those of brain.parked whose consumers died too often, until they are recorded
"""

from __future__ import annotations

from pathlib import Path

PARKED = "brain.parked"
PARKED_COUNTS = "brain.parked_counts"
GIVEN_UP = "brain.given_up"

_FOLDER = Path(__file__).with_name("lua")


def _script(*names: str) -> str:
    """The named files as one script without comments: the text goes over the wire with every call.

    So there is no NOSCRIPT to handle after the server was restarted or failed over.
    """
    lines = [line.strip() for name in names for line in (_FOLDER / f"{name}.lua").read_text().splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("--"))


PUBLISH = _script("wake", "publish")
CLAIM = _script("wake", "park", "claim")
GIVE_BACK = _script("wake", "give_back")
PARK = _script("park", "park_claimed")
UNPARK = _script("wake", "unpark")
