"""One flow, two doors: a generator yields what it wants done, a sync or an async driver does it and sends the result.

An exception of a step, a cancellation included, is thrown into the generator, which may yield clean-up steps before it
raises. Only GeneratorExit is different: the loop that would do the steps is gone, so the generator is closed.
"""

from __future__ import annotations

import contextlib
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
            except GeneratorExit:
                with contextlib.suppress(RuntimeError):  # it wanted to clean up by a step
                    steps.close()
                raise
            except BaseException as error:  # noqa: BLE001  (the generator decides, and raises it again)
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value
