"""One flow, two doors: a generator yields what it wants done, a sync or an async driver does it and sends the result.

An exception of a step, a cancellation included, is thrown into the generator, whose `finally` may yield clean-up steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

Steps = Generator[Any, Any, Any]


def drive(steps: Steps, perform: Callable[[Any], Any]) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                result = perform(step)
            except BaseException as error:  # noqa: BLE001  (the generator decides, and raises it again)
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value


async def adrive(steps: Steps, perform: Callable[[Any], Awaitable[Any]]) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                result = await perform(step)
            except BaseException as error:  # noqa: BLE001  (the generator decides, and raises it again)
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value
