"""WebSockets, event streams and long bodies end when their caller would not be let in any more, and no others do."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import AsyncClient
from django.test import Client as DjangoClient

from gateway import bucket, keys, ongoing, tokens, views
from gateway.auth import Identity
from gateway.identities import Identities
from gateway.limiter import Limiter
from gateway.revoked import Cut, Revocation, Revoked
from gateway.tally import Tally
from gateway.tokens import Issuer, Verifier

from .client import Client, eventually, request
from .conftest import SECRET, RunningEdge, Still, route, snapshot, target
from .odd_upstream import BIG_BYTES, OddUpstream
from .test_edge_paths import UPGRADE

BRAIN = Issuer("brain", "HS256", SECRET, issuer="brain")
TESTER = Identity("key:tester", "tester", frozenset({"operator"}), key_digest=keys.digest(b"good-key"))
ROLES = frozenset({"operator"})


def callers(
    *,
    key: Identity | None = TESTER,
    issuers: tuple[Issuer, ...] = (BRAIN,),
    revoked: Revoked | None = None,
    leeway_s: float = 0.0,
) -> Identities:
    known = {} if key is None else {key.key_digest: key}
    return Identities(known, Verifier(issuers, leeway_s=leeway_s), revoked or Revoked())


def token(**claims: Any) -> str:
    now = int(time.time())
    given = {"sub": "7", "iss": "brain", "exp": now + 600, "iat": now - 5, "jti": "j", "roles": ["operator"]}
    return f"Authorization: Bearer {tokens.sign(given | claims, 'HS256', SECRET)}"


@pytest.fixture
def served(start_edge: Callable[..., RunningEdge], upstream: OddUpstream) -> RunningEdge:
    one = target(upstream.port)
    return start_edge(
        [
            route("/api", [one], roles=ROLES),
            route("/open", [one], auth_required=False),
            route("/counted", [one], limits=(bucket.per_window("minute", 60, 60),)),
        ],
        identities=callers(),
    )


def swap(edge: RunningEdge, **changed: Any) -> None:
    """The next snapshot, which knew the last one's tokens."""
    before = edge.worker.snapshot
    fresh = callers(**changed)
    fresh.carry_over(before.identities, time.time())
    edge.worker.holder.snapshot = replace(before, identities=fresh)


def websocket(edge: RunningEdge, *credentials: str, path: str = "/api") -> Client:
    client = edge.client()
    key = None if credentials else "good-key"
    client.send(request(f"{path}/websocket", *UPGRADE, *credentials, key=key))
    answer = client.answer(head=True)
    assert answer is not None
    assert answer.status == 101
    assert client.reader.read(5) == b"hello"
    return client


def is_open(client: Client) -> bool:
    client.send(b"ping")
    return client.reader.read(4) == b"ping"


def looked(edge: RunningEdge) -> None:
    """Some looks later; of a busy machine that may be a second."""
    identities = edge.worker.snapshot.identities

    def is_known() -> bool:
        found = [getattr(one.exchange, "grounds", None) for one in list(edge.worker.connections)]
        return all(one is None or one.by is identities for one in found) and any(found)

    time.sleep(0.1)
    eventually(is_known, 1.0)


def cut(subject: str = "7") -> Revoked:
    return Revoked((), 0.0, [Cut("brain", subject, 4e9, math.inf)])


BY_KEY: dict[str, dict[str, Any]] = {
    "key revoked or its consumer gone": {"key": None},
    "role lost": {"key": replace(TESTER, roles=frozenset())},
}
BY_TOKEN: dict[str, dict[str, Any]] = {
    "revoked by its jti": {"revoked": Revoked([Revocation("brain", "j", "", math.inf)])},
    "its subject cut": {"revoked": cut()},
    "its issuer gone": {"issuers": ()},
    "its issuer with another key": {"issuers": (replace(BRAIN, key=b"n" * 32),)},
}


@pytest.mark.parametrize(
    ("by_token", "changed"),
    [(False, one) for one in BY_KEY.values()] + [(True, one) for one in BY_TOKEN.values()],
    ids=[*BY_KEY, *BY_TOKEN],
)
def test_websocket__caller_is_let_in_no_more__both_sides_closed_and_counted(
    served: RunningEdge, upstream: OddUpstream, by_token: bool, changed: dict[str, Any]
) -> None:
    with (
        websocket(served, *([token()] if by_token else [])) as client,
        websocket(served, path="/open") as other,
    ):
        looked(served)
        assert is_open(client)
        swap(served, **changed)
        assert client.ended()
        assert eventually(lambda: "websocket closed" in upstream.seen)
        assert is_open(other)
        assert served.worker.tally.refusals == {ongoing.REVOKED: 1}
        assert served.worker.tally.tunnels == 1
    assert eventually(lambda: (served.inflight(), served.worker.tally.tunnels) == (0, 0))
    assert served.targets[0].failures == 0


def test_websocket__caller_still_good__outlives_every_other_change(served: RunningEdge) -> None:
    with websocket(served) as by_key, websocket(served, token()) as by_token:
        for changed in (
            {"revoked": Revoked([Revocation("brain", "other", "", math.inf)])},
            {"revoked": cut("8")},
            {"issuers": (replace(BRAIN, roles_claim="roles", leeway_s=5.0),)},
            {"key": replace(TESTER, scopes=frozenset({"read"}))},
        ):
            swap(served, **changed)
            looked(served)
            assert is_open(by_key)
            assert is_open(by_token)


def test_websocket__opened_by_a_token_newer_than_the_cut__stays(served: RunningEdge) -> None:
    swap(served, revoked=Revoked((), 0.0, [Cut("brain", "7", time.time() - 60, math.inf)]))
    with websocket(served, token()) as client:
        looked(served)
        assert is_open(client)


def test_websocket__client_that_does_not_read__is_cut_all_the_same(
    served: RunningEdge, upstream: OddUpstream
) -> None:
    with websocket(served, token()) as client:
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                client.send(b"x" * 65536)
        (connection,) = served.worker.connections
        assert connection.tunnel is not None
        swap(served, revoked=cut())
        assert eventually(lambda: not served.worker.connections)
        assert eventually(lambda: not upstream.at_work)  # the target could not write to us either


# With LEEWAY_S a token that expired OVER_S ago is good, so that it can be let expire at any time without waiting for it.
LEEWAY_S, OVER_S = 600.0, 5.0


def expired() -> str:
    return token(exp=time.time() - OVER_S)


@pytest.mark.parametrize("by_token", [True, False])
def test_websocket__token_or_key_expires__ends_then(served: RunningEdge, by_token: bool) -> None:
    until = math.ceil(time.time()) + 4  # a busy machine opens it before that, too
    swap(served, key=replace(TESTER, expires_at=until))
    with websocket(served, *([token(exp=until)] if by_token else [])) as client:
        assert client.ended()
        assert time.time() >= until
    assert served.worker.tally.refusals == {ongoing.EXPIRED: 1}


def test_websocket__may_outlive_its_token__for_as_long_as_the_setting_says(
    served: RunningEdge, gateway_conf: Callable[..., None]
) -> None:
    gateway_conf(TUNNEL_PAST_EXPIRY_S=60.0)
    swap(served, leeway_s=LEEWAY_S)
    with websocket(served, expired()) as by_token, websocket(served) as by_key:
        looked(served)
        swap(served, key=replace(TESTER, expires_at=time.time() - OVER_S))
        looked(served)
        swap(served, key=None)  # as an expired key is left out of later snapshots
        looked(served)
        assert is_open(by_token)
        assert is_open(by_key)
        gateway_conf(TUNNEL_PAST_EXPIRY_S=1.0)
        assert by_token.ended()
        assert by_key.ended()
    assert served.worker.tally.refusals == {ongoing.EXPIRED: 2}


# --- responses


def listening(edge: RunningEdge, *credentials: str, what: str = "events") -> Client:
    client = edge.client()
    client.send(request(f"/api/{what}", *credentials, key=None if credentials else "good-key"))
    assert client.reader.readline() == b"HTTP/1.1 200 OK\r\n"
    return client


@pytest.fixture
def answering(upstream: OddUpstream) -> Iterator[None]:
    yield
    upstream.release.set()


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("what", ["events", "stall"])
def test_response_under_way__caller_is_let_in_no_more__cut(served: RunningEdge, what: str) -> None:
    with listening(served, token(), what=what) as client:
        looked(served)
        swap(served, revoked=cut())
        rest = client.reader.read()
        assert not rest.endswith(b"0\r\n\r\n")
    assert eventually(lambda: served.inflight() == 0)
    assert served.worker.tally.refusals == {ongoing.REVOKED: 1}
    (cell,) = [cell for key, cell in served.worker.tally.cells.items() if key[4] == 2]
    assert cell.count == 1
    assert served.targets[0].failures == 0


@pytest.mark.usefixtures("answering")
def test_response_under_way__token_expires__ends_event_streams_alone(served: RunningEdge) -> None:
    swap(served, leeway_s=LEEWAY_S)
    with (
        listening(served, expired()) as events,
        listening(served, expired(), what="stall") as file,
    ):
        swap(served)
        assert not events.reader.read().endswith(b"0\r\n\r\n")
        looked(served)
        assert served.inflight() == 1  # the file is still being fetched
        file.close()
    assert eventually(lambda: served.inflight() == 0)


def test_request_that_waits_for_its_answer__caller_is_let_in_no_more__gets_it(
    served: RunningEdge, upstream: OddUpstream
) -> None:
    with served.client() as waiting, served.client() as sending:
        waiting.send(request("/api/hang"))
        sending.send(request("/api/up", "Content-Length: 6", method="POST") + b"abc")
        assert eventually(lambda: served.inflight() == 2)
        swap(served, key=None)
        answer = sending.answer()  # what is still being sent is not taken any more
        assert answer is not None
        assert (answer.status, answer.headers["x-brain-error"]) == (401, ongoing.REVOKED)
        assert served.inflight() == 1
    assert eventually(lambda: served.inflight() == 0)


def test_look__connection_that_makes_trouble__is_cut_and_the_others_are_looked_at(
    served: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = ongoing._end

    def end(exchange: Any, code: str) -> None:
        monkeypatch.setattr(ongoing, "_end", ended)
        raise RuntimeError("odd")

    with websocket(served) as one, websocket(served) as two:
        looked(served)
        monkeypatch.setattr(ongoing, "_end", end)
        swap(served, key=None)
        assert one.ended()
        assert two.ended()
    assert eventually(lambda: served.worker.tally.tunnels == 0)


# --- the DRF door


@pytest.fixture
def django(
    upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch, prefix: str, gateway_conf: Callable[..., None]
) -> Iterator[Still]:
    gateway_conf(SNAPSHOT_POLL_S=0.05)
    holder = Still()
    one = target(upstream.port)
    holder.snapshot = snapshot(
        [route("/api", [one], roles=ROLES), route("/open", [one], auth_required=False)], identities=callers()
    )
    monkeypatch.setattr(views, "holder", holder)
    monkeypatch.setattr(views, "_limiter", Limiter(prefix=prefix))
    monkeypatch.setattr(views, "tally", Tally())
    yield holder
    upstream.release.set()


def go_on(upstream: OddUpstream) -> None:
    time.sleep(0.06)  # SNAPSHOT_POLL_S
    upstream.go.set()


def follow(path: str, **headers: str) -> Any:
    answer: Any = DjangoClient().get(path, headers=headers or {"X-API-Key": "good-key"})
    assert answer.status_code == 200
    return answer


def refuse_all(holder: Still) -> None:
    holder.snapshot = replace(holder.snapshot, identities=callers(key=None, issuers=()))


def test_django_door__caller_is_let_in_no_more__no_piece_is_given_any_more(
    django: Still, upstream: OddUpstream
) -> None:
    pieces = iter(follow("/api/events"))
    assert next(pieces) == b"data: 0\n\n"
    go_on(upstream)
    assert next(pieces) == b"data: 1\n\n"
    refuse_all(django)
    go_on(upstream)
    with pytest.raises(ConnectionAbortedError, match=ongoing.REVOKED):
        next(pieces)
    assert views.tally.refusals == {ongoing.REVOKED: 1}
    one = django.snapshot.targets[0]
    assert (one.inflight, one.failures) == (0, 0)


@pytest.mark.django_db  # to close an answer looks at the connection that an earlier test may have left open
def test_django_door__open_route__nobody_is_asked_who_listens(django: Still, upstream: OddUpstream) -> None:
    answer = follow("/open/events")
    pieces = iter(answer)
    assert next(pieces) == b"data: 0\n\n"
    refuse_all(django)
    go_on(upstream)
    assert next(pieces) == b"data: 1\n\n"
    answer.close()


def let_expire(holder: Still, leeway_s: float = 0.0) -> None:
    holder.snapshot = replace(holder.snapshot, identities=callers(leeway_s=leeway_s))


async def test_django_door__under_asgi_token_expires__event_stream_ends(
    django: Still, upstream: OddUpstream
) -> None:
    let_expire(django, LEEWAY_S)
    _, _, given = expired().partition(": ")
    answer: Any = await AsyncClient().get("/api/events", headers={"authorization": given})
    pieces = aiter(answer.streaming_content)
    assert await anext(pieces) == b"data: 0\n\n"
    let_expire(django)
    await asyncio.to_thread(go_on, upstream)
    with pytest.raises(ConnectionAbortedError, match=ongoing.EXPIRED):
        await anext(pieces)
    assert await asyncio.to_thread(eventually, lambda: django.snapshot.targets[0].inflight == 0)


def test_django_door__token_expires_while_a_file_is_fetched__fetched_to_its_end(django: Still) -> None:
    let_expire(django, LEEWAY_S)
    _, _, given = expired().partition(": ")
    pieces = iter(follow("/api/big", authorization=given))
    size = len(next(pieces))
    let_expire(django)
    time.sleep(0.06)  # SNAPSHOT_POLL_S
    assert size + sum(map(len, pieces)) == BIG_BYTES
