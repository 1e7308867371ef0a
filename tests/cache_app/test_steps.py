from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from cache_app.steps import Steps, adrive, drive


def asks(log: list[Any]) -> Steps:
    try:
        first = yield "a"
        second = yield "b", first
    except LookupError as error:
        yield "clean up"
        return str(error)
    except GeneratorExit:
        log.append("closed")
        raise
    except BaseException:
        yield "clean up"
        raise
    return first, second


def test_drive__steps__get_their_results_and_its_return_comes_back() -> None:
    assert drive(asks([]), lambda step: step) == ("a", ("b", "a"))


def test_drive__step_raises__the_flow_decides() -> None:
    done: list[Any] = []

    def perform(step: Any) -> Any:
        done.append(step)
        if step == "a":
            raise LookupError("gone")

    assert drive(asks([]), perform) == "gone"
    assert done == ["a", "clean up"]


async def test_adrive__cancelled__cleans_up_and_is_cancelled() -> None:
    done: list[Any] = []

    async def perform(step: Any) -> Any:
        done.append(step)
        if step == "a":
            await asyncio.sleep(10)

    task = asyncio.ensure_future(adrive(asks([]), perform))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["a", "clean up"]


def test_adrive__coroutine_is_thrown_away__the_flow_is_closed_and_does_no_step() -> None:
    log: list[Any] = []

    class Pause:
        def __await__(self) -> Any:
            yield

    async def perform(step: Any) -> Any:
        log.append(step)
        await Pause()

    coroutine = adrive(asks(log), perform)
    coroutine.send(None)
    del coroutine
    gc.collect()
    assert log == ["a", "closed"]


def test_adrive__flow_cannot_do_without_a_step__is_left() -> None:
    def stubborn() -> Steps:
        try:
            yield "a"
        finally:
            yield "clean up"

    class Pause:
        def __await__(self) -> Any:
            yield

    async def perform(step: Any) -> Any:
        await Pause()

    coroutine = adrive(stubborn(), perform)
    coroutine.send(None)
    coroutine.close()
