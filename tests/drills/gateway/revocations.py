"""A key and a token are revoked while they are in use, or the token's subject is cut off: within two seconds no process of
two edges takes them any more, and the WebSockets that they opened are closed."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

from benchmarks.gateway import credentials

from .drill import drill
from .loads import Kind
from .rig import ISSUER, SECRET, service
from .sockets import Sockets
from .verdict import Excuse, Fate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drills.outcome import Outcome

    from .rig import Document, Rig
    from .sites import Edge, Target

WITHIN_S = 2.0
_KNOWN_S = 1.5  # until a new key is known everywhere: SNAPSHOT_POLL_S


@drill("revoked")
def revoked(rig: Rig) -> Outcome:
    """Half of the rounds with Valkey stopped, so that nobody is told and all have to look."""
    rounds = rig.size(2, 12)
    rig.apply(_document(rig.targets(2)))
    edges = rig.edges(2)
    bystander, _ = _key(rig, "bystander")
    time.sleep(_KNOWN_S)
    fates: list[Fate] = []
    late = {"told": 0.0, "not told": 0.0}
    with rig.load(edges, 4, _kind({"X-API-Key": bystander})) as others:
        for number in range(rounds):
            how = "told" if number < rounds // 2 else "not told"
            if number == rounds // 2:
                rig.store.stop()
            more, took_s = _round(rig, edges, number)
            fates += more
            late[how] = max(late[how], took_s)
        fates += others.stop()
    rig.store.start()
    for how, took_s in late.items():
        rig.claim(took_s < WITHIN_S, f"{how}: refused within {WITHIN_S:.0f} s")
    refused = Excuse(
        "refused after they were revoked", lambda fate: (fate.status, fate.mark) == (401, "revoked")
    )
    note = (
        f"{rounds} × a key and a token revoked on 2 edges of 2 processes; the last one was taken, and the last WebSocket"
        f" closed, {late['told']:.2f} s later, {late['not told']:.2f} s without Valkey"
    )
    return rig.outcome(note, fates, [refused], recovered_s=max(late.values()), within_s=WITHIN_S)


def _round(rig: Rig, edges: Sequence[Edge], number: int) -> tuple[list[Fate], float]:
    """The fates, those that were refused in time marked as such, and how much later the last request was taken or the last
    WebSocket closed."""
    key, prefix = _key(rig, "robot")
    subject = f"somebody-{number}"
    token = credentials.token(secret=SECRET, number=number, subject=subject)
    time.sleep(_KNOWN_S)
    with contextlib.ExitStack() as stack:
        given = ({"X-API-Key": key}, {"Authorization": f"Bearer {token}"})
        loads = [stack.enter_context(rig.load(edges, 8, _kind(headers))) for headers in given]
        ports = [edge.port for edge in edges]
        held = [stack.enter_context(Sockets(ports, 4, headers=headers)) for headers in given]
        rig.until(lambda: all(sockets.are_open for sockets in held), "WebSockets are open at first")
        time.sleep(1.0)
        at = time.monotonic()  # before: none of this may be refused
        rig.manage("key", "revoke", prefix)
        if number % 2:
            rig.manage("cut", "subject", "default", subject, "--until", "2100-01-01")
        else:
            _revoke(token)
        done = time.monotonic()
        time.sleep(WITHIN_S + 0.5)
        fates = [fate for load in loads for fate in load.stop()]
    rig.claim(any(fate.is_good for fate in fates if fate.at < at), "they are taken at first")
    rig.claim(
        all(fate.status == 401 for fate in fates if fate.at > done + WITHIN_S), "they are refused in the end"
    )
    closed = [one for sockets in held for one in sockets.all]
    rig.claim(all(one.fault for one in closed), "WebSockets are closed in the end")
    last = max([at, *(fate.at for fate in fates if fate.is_good), *(one.ended_at for one in closed)])
    return [marked(fate, at) for fate in fates], max(0.0, last - done)


def marked(fate: Fate, revoked_at: float) -> Fate:
    from dataclasses import replace

    is_refused = fate.code == "credentials_invalid" and fate.until > revoked_at
    return replace(fate, mark="revoked") if is_refused else fate


def _kind(headers: dict[str, str]) -> Kind:
    return Kind(headers=headers, methods=("GET",), ms=(0, 10), streamed=0, pause_s=0.03)


def _key(rig: Rig, consumer: str) -> tuple[str, str]:
    made = json.loads(rig.manage("key", "create", consumer, "--json"))
    return made["key"], made["prefix"]


def _revoke(token: str) -> None:
    """As the API does it."""
    from gateway import revocations
    from gateway.holder import Holder

    holder = Holder()
    holder.refresh()
    revocations.revoke_token(token, holder.snapshot.verifier, actor="drill", source="cli")


def _document(targets: Sequence[Target]) -> Document:
    authentication = {
        "jwt_secret": SECRET,
        "jwt_algorithm": "HS256",
        "jwt_issuer": ISSUER,
        "api_keys": {"robot": {}, "bystander": {}},
    }
    routes = [{"path": "/work", "service": "work"}]
    return {"authentication": authentication, "services": {"work": service(targets)}, "routes": routes}
