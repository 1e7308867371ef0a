"""Runs `pipeline.steps` for callers that perform its steps in order: blocking (drive) or on an event loop
(adrive)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

from .calls import Refusal, Relay, Step

Running = Generator[Step | Relay, Any, None]


def drive(
    running: Running, perform: Callable[[Any], Any], lock: AbstractContextManager[Any]
) -> Relay | Refusal:
    """Until the response's head is there or the call is refused. The caller finishes or closes `running`
    after a Relay.

    lock: held while the rules run and never while a step is performed; the targets' counts are shared by all
    threads.
    """
    try:
        with lock:
            step = next(running)
        while not isinstance(step, Relay | Refusal):
            try:
                answer = perform(step)
            except Exception as error:  # noqa: BLE001  (the rules decide what a failure means)
                with lock:
                    step = running.throw(error)
            else:
                with lock:
                    step = running.send(answer)
    except BaseException:
        with lock:
            running.close()
        raise
    return step


async def adrive(running: Running, perform: Callable[[Any], Awaitable[Any]]) -> Relay | Refusal:
    """The same on one event loop, which needs no lock."""
    try:
        step = next(running)
        while not isinstance(step, Relay | Refusal):
            try:
                answer = await perform(step)
            except Exception as error:  # noqa: BLE001
                step = running.throw(error)
            else:
                step = running.send(answer)
    except BaseException:
        running.close()
        raise
    return step
