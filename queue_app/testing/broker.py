"""What becomes of wake-ups in a test: kept for it to look at (no_broker), or run at once (eager)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from queue_app import eager as eager_mode
from queue_app import policies, wakeup
from queue_app.broker import publishing
from queue_app.broker.descriptions import HEADER
from queue_app.publication import Wakeup

from .replacing import replaced

TELL_AND_SEND = publishing.Sender._tell_and_send  # before anything is replaced


@dataclass
class Published:
    """wakeups: of the ledger's jobs, one for each. looks: queues with limits, where jobs came to wait for turns.

    messages: tasks that went to the broker themselves, as (queue, task, id). Wake-ups are published on commit.
    """

    wakeups: list[Wakeup] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    messages: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def by_queue(self) -> dict[str, int]:
        """How many wake-ups were published for which queue."""
        return dict(Counter(one.queue for one in self.wakeups))

    def take(self, wakeups: Sequence[Wakeup]) -> bool:
        self.wakeups += [one for one in wakeups if one.id != wakeup.LOOK]
        self.looks += [one.queue for one in wakeups if one.id == wakeup.LOOK]
        return True


@contextmanager
def no_broker() -> Iterator[Published]:
    """In the block nothing leaves this process, whichever thread enqueues. What Celery's own queues would get is dropped."""
    published = Published()

    def keep(self: Any, producer: Any, name: str, message: Any, options: dict[str, Any], event: Any) -> None:
        published.messages.append((message[0][HEADER]["queue"], name, message[0]["id"]))

    policies.forget()  # rows of the test before went with its transaction
    with wakeup.taken_by(published.take), replaced(publishing.Sender, "_tell_and_send", keep):
        yield published


@contextmanager
def eager() -> Iterator[None]:
    """In the block jobs run in this process when their transaction commits, as with BRAIN["QUEUE"]["EAGER"].

    In a TestCase nothing commits: there Django's `captureOnCommitCallbacks(execute=True)` is where they run.
    """
    policies.forget()
    with wakeup.taken_by(eager_mode.run):
        yield
