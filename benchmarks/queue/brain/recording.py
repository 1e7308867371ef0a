"""The recorder alone, in this process: `many` fills the stream as publishers and workers would, `one` records all of it."""

from __future__ import annotations

import time

from queue_app import workers
from queue_app.broker import events, recorder, stream
from queue_app.broker.events import About, Event
from queue_app.states import Priority
from queue_app.uuid7 import uuid7

ENDS = 64  # in one entry, as acknowledgements of our transport carry them; a publication's event is an entry of its own


class Recording:
    def __init__(self) -> None:
        worker = workers.register(pool="threads", concurrency=1, queues=[]).id
        self._worker = str(worker)
        self._recorder = recorder.Recorder(lambda: worker)

    def many(self, task: str, numbers: range) -> None:
        ids = [str(uuid7()) for _ in numbers]
        with stream.client() as (client, key), client.pipeline(transaction=False) as pipe:
            for number, id in zip(numbers, ids, strict=True):
                stream.add(pipe, key, events.pack("", [_published(id, number)]))
            for start in range(0, len(ids), ENDS):
                ended = [_ended(id) for id in ids[start : start + ENDS]]
                stream.add(pipe, key, events.pack(self._worker, ended))
            pipe.execute()

    def one(self, task: str, number: int) -> None:
        while self._recorder.look() == 0.0 or recorder.standing().lag_s:
            pass


def _published(id: str, number: int) -> Event:
    payload = f'{{"args": [{number}], "kwargs": {{}}}}'
    about = About("bench.broker_noop", "default", "", Priority.NORMAL, payload, "", 4, None, None, None)
    return [events.PENDING, id, 1, time.time(), list(about)]


def _ended(id: str) -> Event:
    return [events.COMPLETED, id, 1, time.time(), None, False, time.time(), "None"]
