from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from queue_app.worker import reception, returning
from queue_app.worker.slots import Slots, TaskCall

from .conftest import until


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots(2)
    yield made
    made.close()


def all_have_ended(slots: Slots) -> bool:
    return not any(thread.is_alive() for thread in slots.threads)


def test_submit__more_calls_than_slots__run_in_their_order_and_at_once(slots: Slots) -> None:
    gate, ran = threading.Event(), list[int]()
    both = threading.Barrier(3)

    def hold(number: int) -> None:
        both.wait(60)
        gate.wait(60)
        ran.append(number)

    for number in range(2):
        slots.submit(lambda number=number: hold(number))
    both.wait(60)  # two at once
    for number in range(2, 6):
        slots.submit(lambda number=number: ran.append(number))
    assert ran == []
    gate.set()
    until(lambda: len(ran) == 6, "all have run")
    assert [number for number in ran if number > 1] == [2, 3, 4, 5]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_submit__a_call_raises__its_slot_goes_on(slots: Slots, error: type[BaseException]) -> None:
    def break_it() -> None:
        raise error

    for _ in range(4):
        slots.submit(break_it)
    ran = threading.Event()
    slots.submit(ran.set)
    assert ran.wait(60)


def test_close__calls_wait__they_are_dropped_and_what_runs_ends() -> None:
    slots, gate, ran = Slots(1), threading.Event(), list[str]()
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(60)
        ran.append("held")

    slots.submit(hold)
    begun.wait(60)
    slots.submit(lambda: ran.append("waiting"))
    slots.close()
    with pytest.raises(RuntimeError, match="closed"):
        slots.submit(lambda: None)
    gate.set()
    until(lambda: all_have_ended(slots), "the thread ends")
    assert ran == ["held"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [(lambda: (0, "None", 0.1), "success"), (SystemExit(3), "failure"), (KeyboardInterrupt(), "failure")],
)
def test_task_call__however_it_ends__it_is_told(answer: Any, told: str) -> None:
    heard = list[tuple[str, Any]]()

    def trace() -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer()

    TaskCall(
        trace,
        (),
        on_accepted=lambda pid, at: heard.append(("accepted", pid)),
        on_success=lambda found: heard.append(("success", found)),
        on_failure=lambda info: heard.append(("failure", info.exception)),
    )()
    assert [name for name, _ in heard] == ["accepted", told]


def test_withdraw__calls_of_two_kinds_wait__one_kind_is_taken_out_and_the_other_runs_in_its_order() -> None:
    slots, gate, ran = Slots(1), threading.Event(), list[int]()
    begun = threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(60)

    slots.submit(hold)
    begun.wait(60)
    for number in range(6):
        call = reception.Waiting(ran.append, number) if number % 2 else partial(ran.append, number)
        slots.submit(call)
    assert slots.waiting == 6
    assert [call.request for call in slots.withdraw(reception.Waiting)] == [1, 3, 5]
    before = slots.begun
    gate.set()
    until(lambda: ran == [0, 2, 4], "the others have run")
    assert slots.begun == before + 3
    slots.close()
    assert slots.withdraw(reception.Waiting) == []
    until(lambda: all_have_ended(slots), "the slots end")


def test_reception__slots_are_closed__message_is_left_to_go_back_with_its_connection(slots: Slots) -> None:
    """It once raised in Celery's loop."""
    taken: list[Any] = []

    class Consumer:
        hub = object()

        def create_task_handler(self) -> Any:
            return taken.append

    consumer: Any = Consumer()
    reception.install(consumer, slots)
    handle = consumer.create_task_handler()
    first, second = SimpleNamespace(headers=None), SimpleNamespace(headers=None)
    handle(first)
    slots.close()
    handle(second)
    assert taken == [first]


def worker_with(*, semaphore: Any = None, slots: Any = None) -> Any:
    pool_cls = SimpleNamespace(uses_semaphore=slots is None)
    return SimpleNamespace(pool_cls=pool_cls, semaphore=semaphore, pool=SimpleNamespace(slots=slots))


def test_line_of__each_pool__what_waits_in_it_or_none(slots: Slots) -> None:
    semaphore, ran = LaxBoundedSemaphore(1), list[str]()
    for name in ("runs", "waits", "waits too"):
        semaphore.acquire(ran.append, name)
    line = returning.line_of(worker_with(semaphore=semaphore))
    assert line is not None
    place = line.place()
    assert (ran, place == line.place()) == (["runs"], True)
    semaphore.release()
    assert line.place() not in (None, place)
    assert line.withdraw() == ["waits too"]
    assert line.place() is None
    assert returning.line_of(worker_with(slots=slots)).place() is None  # type: ignore[union-attr]
    assert returning.line_of(worker_with()) is None  # prefork without an event loop
    assert returning.line_of(worker_with(slots="of somebody else")) is None
