"""Messages are set aside: those that no consumer can read, and those whose consumers died too often. See parked.py for what then."""

from __future__ import annotations

import logging
from typing import Any

from kombu.utils.json import dumps

from .claims import Claimed, unacked_entry
from .envelope import BadEnvelope, TakenBackTooOften
from .scripts import GIVEN_UP, PARK

log = logging.getLogger(__name__)


def park(channel: Any, claimed: Claimed, error: BadEnvelope) -> None:
    channel.held.pop(claimed.tag, None)
    keys = channel.held_keys()
    with channel.conn_or_acquire() as client:
        client.eval(PARK, len(keys), *keys, claimed.tag, claimed.queue, str(error), claimed.raw)
    log.error("envelope_parked: queue %s, %s", claimed.queue, error)


def park_unacked(channel: Any, tag: str, error: Exception) -> None:
    """An entry of `unacked` that cannot be restored, claimed by a worker that died or by a stock one."""
    with channel.conn_or_acquire() as client:
        entry = client.hget(channel.unacked_key, tag)
    if entry is not None:
        queue, raw = unacked_entry(entry)
        park(channel, Claimed(tag, queue, "", raw), BadEnvelope(str(error)))


def give_up(channel: Any, tag: str, error: TakenBackTooOften) -> None:
    keys = (*channel.held_keys(), channel.full_key(GIVEN_UP))
    with channel.conn_or_acquire() as client:
        parked = client.eval(PARK, len(keys), *keys, tag, error.queue, str(error), dumps(error.envelope))
    if parked:
        log.error("envelope_parked: queue %s, %s", error.queue, error)
