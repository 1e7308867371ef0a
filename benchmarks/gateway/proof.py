"""What a side has to prove before a row of it is reported."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Callable

from benchmarks.processes import Broken

from . import asked, credentials
from .load import Outcome
from .upstream import PORTS, Upstream

PROBES = 30


def shortfall(outcome: Outcome, served: int, connections: int) -> str:
    """Why these requests did not all reach the upstream once, or "".

    served: counted there. A generator that stops leaves up to one request a connection behind that was served and not
    counted as answered.
    """
    if outcome.broken or outcome.refused:
        return f"{outcome.refused} answers of 400 and above, {outcome.broken} broken connections"
    if not outcome.answered:
        return "no request was answered"
    if served < outcome.answered:
        return f"{outcome.answered} requests were answered and only {served} of them reached the upstream"
    if served > outcome.answered + connections:
        return f"{outcome.answered} requests were answered and {served} reached the upstream"
    return ""


def ask(port: int, path: str, token: str | None, count: int = 1) -> list[tuple[int, str]]:
    """Status and body of each, over one connection."""
    connection, answers = http.client.HTTPConnection("127.0.0.1", port, timeout=10), []
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        for _ in range(count):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answers.append((answer.status, answer.read().decode("latin-1")))
    except http.client.HTTPException as error:
        raise Broken(f"no answer to GET {path}: {error!r}") from error
    finally:
        connection.close()
    return answers


def refuses_bad_tokens(port: int, upstream: Upstream) -> None:
    """Raises Broken unless a forged token and none get 401 and do not reach the upstream."""
    before = upstream.settled()
    for name, token in (("a forged token", credentials.forged()), ("no token", None)):
        status, _ = ask(port, asked.paths()[0], token)[0]
        if status != 401:
            raise Broken(f"{name} got {status}, not 401")
    if upstream.settled() != before:
        raise Broken("a request without a good token reached the upstream")


def refuses_over_limit(port: int, low: int) -> None:
    """Raises Broken unless, of more requests than the low limit lets through, some get 429 and the others 200."""
    _only_and_both({200, 429}, ask(port, asked.paths()[0], credentials.token(), low * 8))


def balances(port: int) -> None:
    """Raises Broken unless requests arrive on every port of the upstream."""
    answers = ask(port, asked.prefix(7) + asked.WHO, credentials.token(), PROBES)
    if {status for status, _ in answers} != {200}:
        raise Broken(f"a good token got {_counted(answers)}")
    seen = {body for _, body in answers}
    if len(seen) != PORTS:
        raise Broken(f"{PROBES} requests reached {len(seen)} of {PORTS} targets")


def unknown_path_is_404(port: int) -> None:
    status, _ = ask(port, "/elsewhere", credentials.token())[0]
    if status != 404:
        raise Broken(f"a path of no route got {status}, not 404")


def serves(port: int) -> Callable[[], bool]:
    """Whether it answers 200 to a good token by now, for waiting."""
    token = credentials.token()

    def ready() -> bool:
        try:
            return ask(port, asked.paths()[0], token)[0][0] == 200
        except Broken:
            return False

    return ready


def _only_and_both(expected: set[int], answers: list[tuple[int, str]]) -> None:
    if {status for status, _ in answers} != expected:
        raise Broken(f"{len(answers)} requests above the limit got {_counted(answers)}, not both 200 and 429")


def _counted(answers: list[tuple[int, str]]) -> str:
    return ", ".join(
        f"{count} × {status}" for status, count in sorted(Counter(s for s, _ in answers).items())
    )
