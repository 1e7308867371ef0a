from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from foundation import request_id
from orm_app import work
from orm_app.middleware import UnitOfWorkMiddleware


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[work.Unit]]:
    seen: list[work.Unit] = []
    monkeypatch.setattr(work, "_at_end", [seen.append])
    return seen


def test_unit__inside_another__the_outer_one_goes_on(ended: list[work.Unit]) -> None:
    with work.unit("request", "GET /orders", "r1") as outer:
        with work.unit("job", "charge", "j1") as inner:
            assert inner is outer
        assert work.current() is outer
        assert not ended
    assert work.current() is None
    assert ended == [outer]


def test_unit__block_raises__it_has_ended(ended: list[work.Unit]) -> None:
    with pytest.raises(ZeroDivisionError), work.unit("job", "charge", "j1"):
        raise ZeroDivisionError
    assert work.current() is None
    assert [one.id for one in ended] == ["j1"]


def test_unit__ended_in_another_context__has_ended_all_the_same(ended: list[work.Unit]) -> None:
    begun = contextvars.copy_context().run(work.begin, work.Unit("job", "charge", "j1"))
    work.end(*begun)
    assert [(one.id, one.is_over) for one in ended] == [("j1", True)]


def test_middleware__sync_view__its_unit_has_the_request_id(ended: list[work.Unit]) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        unit = work.current()
        assert unit is not None
        unit.written.add("default")
        return HttpResponse(unit.name)

    with request_id.bound("abc"):
        answer = UnitOfWorkMiddleware(view)(RequestFactory().get("/orders"))
    assert answer.content == b"GET /orders"
    assert [(one.kind, one.id, one.written) for one in ended] == [("request", "abc", {"default"})]


async def test_middleware__async_view__threads_of_it_share_its_unit(ended: list[work.Unit]) -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        def write() -> None:
            unit = work.current()
            assert unit is not None
            unit.written.add("default")

        await asyncio.gather(sync_to_async(write)(), sync_to_async(lambda: None)())
        return HttpResponse("")

    await UnitOfWorkMiddleware(view)(AsyncRequestFactory().get("/orders"))
    assert [one.written for one in ended] == [{"default"}]
    assert work.current() is None
