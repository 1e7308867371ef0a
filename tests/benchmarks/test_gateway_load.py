from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.environments import Unavailable
from benchmarks.gateway import asked, binaries, load, paced
from benchmarks.gateway.load import Outcome
from benchmarks.gateway.upstream import read_status
from benchmarks.processes import Broken
from tests.servers import Missing


def test_read_wrk__its_last_line__is_the_outcome() -> None:
    said = "Running 1s test\n\nOUTCOME " + (
        '{"answered": 900, "refused": 3, "broken": 1, "seconds": 1.5, "p50_us": 70, "p99_us": 900}\n'
    )
    read = load.read_wrk(said)
    assert read == Outcome(900, 3, 1, 1.5, 70, 900)
    assert read.per_s == 600


def test_read_wrk__no_outcome__is_broken_with_what_it_said() -> None:
    with pytest.raises(Broken, match="unable to connect"):
        load.read_wrk("unable to connect to 127.0.0.1")


def test_read_h2load__log_of_requests__counts_and_ranks() -> None:
    lines = [f"{at}\t200\t{at}" for at in range(1, 101)] + ["5\t429\t1", "6\t-1\t0"]
    read = load.read_h2load("\n".join(lines), 2.0)
    assert (read.answered, read.refused, read.broken, read.per_s) == (101, 1, 1, 50.5)
    assert (read.p50_us, read.p99_us) == (50, 99)


def test_run__no_generator__says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_on_path", lambda name, *more: None)
    with pytest.raises(Missing, match="apt install wrk"):
        load.run(1, asked.same_token(tmp_path / "requests"), seconds=1, connections=1)
    with pytest.raises(Missing, match="apt install nginx-light"):
        binaries.nginx()


def test_run__many_tokens_and_only_h2load__cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "wrk", lambda: None)
    monkeypatch.setattr(binaries, "h2load", lambda: Path("h2load"))
    requests = asked.write(tmp_path / "requests", ["/"], ["one", "two"])
    with pytest.raises(Unavailable, match="apt install wrk"):
        load.run(1, requests, seconds=1, connections=1)


def test_write__shorter_one__is_repeated(tmp_path: Path) -> None:
    lines = asked.write(tmp_path / "requests", ["/a", "/b"], ["x", "y", "z"]).read_text().splitlines()
    assert lines == ["/a x", "/b y", "/a z"]


@pytest.mark.parametrize(
    ("said", "has"),
    [
        ("HAProxy version 2.6.12-1\nFeature list : +LUA +OPENSSL -QUIC", True),
        ("HA-Proxy version 2.4.22\nFeature list : +OPENSSL", False),
        ("HAProxy version 3.0.1\nFeature list : -OPENSSL", False),
        ("", False),
    ],
)
def test_has_jwt__version_and_openssl__both_count(said: str, has: bool) -> None:
    assert binaries.has_jwt(said) is has


def test_read_status__stub_status__is_its_third_counter() -> None:
    text = "Active connections: 2 \nserver accepts handled requests\n 11 12 345 \nReading: 0 Writing: 1 Waiting: 1 \n"
    assert read_status(text) == 345
    with pytest.raises(Broken, match="not stub_status"):
        read_status("<html>nginx</html>")


@pytest.mark.parametrize(
    ("received", "size"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 40),
        (b"HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok", 39),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 59),
    ],
)
def test_answer_bytes__head_and_framing__tell_the_end(received: bytes, size: int | None) -> None:
    assert paced.answer_bytes(received) == size


def test_outcome__unanswered_requests__are_lost_and_not_in_the_percentiles() -> None:
    said = paced.outcome(Counter({200: 3, 429: 1}), [0.001, 0.002, 0.003, 0.004], total=6, seconds=1.0)
    assert (said["sent"], said["lost"], said["statuses"]) == (6, 2, {200: 3, 429: 1})
    assert (said["p50_us"], said["p99_us"]) == (2000.0, 4000.0)


@contextlib.contextmanager
def answering(*, pause_s: float, after: int) -> Iterator[int]:
    """A server on one thread that stands still once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        answered = 0
        with connection:
            while received := connection.recv(65536):
                for _ in range(received.count(b"\r\n\r\n")):
                    answered += 1
                    if answered == after:
                        time.sleep(pause_s)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.close()


def test_run__server_that_stands_still__delays_the_requests_that_were_due_meanwhile(tmp_path: Path) -> None:
    requests = asked.write(tmp_path / "requests", ["/"], ["x"])
    with answering(pause_s=0.2, after=10) as port:
        said = paced.run(paced.Plan((port,), str(requests), rate=200.0, seconds=0.3, connections=1))
    assert (said["statuses"], said["lost"]) == ({200: 60}, 0)
    # 40 of 60 were due during the pause. One that waits for each answer would have found one slow request of 60.
    assert 5_000 < said["p50_us"] < said["p99_us"]
    assert said["p99_us"] >= 180_000
