from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio
from hiredis import pack_command
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from cache_app import connections as store
from cache_app.line import Line


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    made = store.aline()
    assert made is not None
    await made.dial()
    yield made
    made.close()


async def replies(line: Line, *commands: tuple[Any, ...]) -> list[Any]:
    told: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def hear(found: list[Any], error: Exception | None) -> None:
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(found)

    line.send(b"".join(map(pack_command, commands)), len(commands), hear)
    async with asyncio.timeout(60):
        return await told


async def test_send__batch_after_batch__replies_in_order_and_errors_in_their_place(line: Line) -> None:
    found = await replies(line, ("ECHO", "a"), ("EVALSHA", "0" * 40, "0"), ("GET",), ("ECHO", "b"))
    assert [found[0], type(found[1]), type(found[2]), found[3]] == [b"a", NoScriptError, ResponseError, b"b"]
    assert await replies(line, ("ECHO", "c")) == [b"c"]
    big = "x" * 1_000_000
    assert await replies(line, *[("ECHO", big)] * 3) == [big.encode()] * 3


async def test_line__server_hangs_up__whoever_waits_is_told_and_it_is_closed(line: Line) -> None:
    number = (await replies(line, ("CLIENT", "ID")))[0]
    waiting = asyncio.ensure_future(replies(line, ("BLPOP", "test:line:nothing", "5")))
    await asyncio.sleep(0)
    store.client().client_kill_filter(_id=number)
    with pytest.raises(redis.ConnectionError):
        await waiting
    assert not line.is_open


async def test_close__waiting__told_once(line: Line) -> None:
    heard: list[Exception | None] = []
    line.send(pack_command(("BLPOP", "test:line:nothing", "5")), 1, lambda _, error: heard.append(error))
    line.close(TimeoutError())
    line.close()
    assert [type(error) for error in heard] == [TimeoutError]


async def test_data_received__reply_that_nobody_asked_for__closed(line: Line) -> None:
    line.data_received(b"+OK\r\n")
    assert not line.is_open
    other = store.aline()
    assert other is not None
    await other.dial()
    heard: list[Exception | None] = []
    other.send(pack_command(("BLPOP", "test:line:nothing", "5")), 1, lambda _, error: heard.append(error))
    other.data_received(b"this is not Redis\r\n")
    assert [type(error) for error in heard] == [InvalidResponse]


async def test_data_received__push_message_of_resp3__no_reply(line: Line) -> None:
    waiting = asyncio.ensure_future(replies(line, ("BLPOP", "test:line:nothing", "0.05")))
    await asyncio.sleep(0)
    line.data_received(b">2\r\n+invalidate\r\n+x\r\n")
    assert await waiting == [None]


async def test_dial__no_server__raises() -> None:
    made = Line(redis.asyncio.Connection(host="127.0.0.1", port=1, socket_connect_timeout=1))
    with pytest.raises(redis.ConnectionError):
        await made.dial()
    assert not made.is_open
