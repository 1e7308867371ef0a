"""The edge's own TLS: what clients and targets see of it, and certificates that are replaced while it serves."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from django.core.management import call_command

from foundation.commands import Failed
from gateway.tls import Certificate

from . import certificates
from .client import Client, request
from .conftest import RunningEdge, serving, usual_routes
from .odd_upstream import OddUpstream
from .test_command import edge as edge_process
from .test_command import eventually


def put(directory: Path, key: Any = None) -> str:
    """A new certificate of edge.test in edge.test.pem; returns it in PEM."""
    return certificates.make(directory, "edge.test", key)[0]


def trusting(*pems: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata="\n".join(pems))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def secured(
    files: Path,
    upstream: OddUpstream,
    gateway_conf: Callable[..., None],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[RunningEdge, str]]:
    """An edge that speaks TLS, and its certificate."""
    monkeypatch.setattr("gateway.worker.LOOK_S", 0.02)
    pem = put(files)
    with serving(
        usual_routes(upstream.port), prefix, certificate=Certificate(files / "edge.test.pem")
    ) as edge:
        yield edge, pem


def test_edge__tls__verified_and_the_target_hears_of_it(secured: tuple[RunningEdge, str]) -> None:
    edge, pem = secured
    with edge.client(tls=trusting(pem)) as client:
        for _ in range(2):  # keep-alive
            found = client.send(request("/api/echo")).answer()
            assert found is not None
            assert found.status == 200
        assert found.json()["headers"]["x-forwarded-proto"] == ["https"]
        assert client.socket.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
    with pytest.raises(ssl.SSLCertVerificationError):
        edge.client(tls=ssl.create_default_context())


def test_edge__tls__old_versions_and_plain_http__turned_away(secured: tuple[RunningEdge, str]) -> None:
    edge, pem = secured
    old = trusting(pem)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.client(tls=old)
    with edge.client() as plain:
        assert plain.send(request("/api/echo")).ended()


def test_edge__tls__bodies_both_ways_and_a_client_that_goes(secured: tuple[RunningEdge, str]) -> None:
    edge, pem = secured
    body = os.urandom(3_000_000)
    with edge.client(tls=trusting(pem)) as client:
        client.socket.sendall(request("/api/length", method="POST", body=body))
        found = client.answer()
        assert found is not None
        assert found.status == 200
    client = edge.client(tls=trusting(pem))
    client.send(request("/api/hang"))
    assert eventually(lambda: edge.inflight() == 1)
    client.close()
    assert eventually(lambda: edge.inflight() == 0)


def test_edge__new_certificate__for_new_handshakes_while_old_connections_go_on(
    secured: tuple[RunningEdge, str], files: Path
) -> None:
    edge, first = secured
    with edge.client(tls=trusting(first)) as old:
        assert old.send(request("/api/echo")).answer() is not None
        for kind in (None, rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())):
            newest = put(files, kind)
            assert eventually(lambda pem=newest: serves(edge.port, pem))
            assert not serves(edge.port, first)
        answer = old.send(request("/api/echo")).answer()
        assert answer is not None
        assert answer.status == 200


def serves(port: int, pem: str) -> bool:
    try:
        with Client(port, tls=trusting(pem)) as client:
            return client.send(request("/api/echo", "Connection: close")).answer() is not None
    except ssl.SSLCertVerificationError:
        return False


def test_renew__files_that_are_no_good__the_last_ones_stay(files: Path) -> None:
    put(files)
    file = files / "edge.test.pem"
    certificate = Certificate(file)
    first, before = certificate._newest, certificate.not_after
    for broken in ("", file.read_text()[:300], file.read_text().replace("M", "N")):
        file.write_text(broken)
        assert not certificate.renew()
    file.unlink()
    assert not certificate.renew()
    assert (certificate._newest, certificate.not_after) == (first, before)
    put(files)
    assert certificate.renew()
    assert certificate._newest is not first
    assert not certificate.renew()
    assert certificate.renew(at_once=True)


def test_renew__key_that_comes_later_than_its_certificate__both_taken_then(files: Path) -> None:
    put(files)
    cert, key = split(files)
    certificate = Certificate(cert, key)
    put(files)
    whole = (files / "edge.test.pem").read_text()
    cert.write_text(whole[: whole.index("-----BEGIN PRIVATE")])
    assert not certificate.renew()
    key.write_text(whole[whole.index("-----BEGIN PRIVATE") :])
    assert certificate.renew()


def split(files: Path) -> tuple[Path, Path]:
    whole = (files / "edge.test.pem").read_text()
    cert, key = files / "cert.pem", files / "key.pem"
    cert.write_text(whole[: whole.index("-----BEGIN PRIVATE")])
    key.write_text(whole[whole.index("-----BEGIN PRIVATE") :])
    return cert, key


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tls-cert", "{dir}/none.pem"], "none.pem cannot be read: No such file"),
        (["--tls-cert", "{dir}"], "cannot be read: Is a directory"),
        (["--tls-cert", "{dir}/key.pem"], "key.pem holds no certificate in PEM"),
        (["--tls-cert", "{dir}/cert.pem"], "cert.pem holds no private key in PEM"),
        (["--tls-cert", "{dir}/cert.pem", "--tls-key", "{dir}/other.pem"], "other.pem is not the key of"),
        (["--tls-cert", "{dir}/cert.pem", "--tls-key", "{dir}/sealed.pem"], "the key is encrypted"),
        (["--tls-cert", "{dir}/broken.pem", "--tls-key", "{dir}/key.pem"], "cannot be used"),
        (["--tls-key", "{dir}/key.pem"], "--tls-key goes with --tls-cert"),
    ],
)
def test_gateway__certificate_that_is_no_good__one_line_and_exit_2(
    files: Path, options: list[str], told: str
) -> None:
    put(files)
    split(files)
    other = certificates.make(files, "other")[0]
    whole = (files / "other.pem").read_text()
    (files / "other.pem").write_text(whole.removeprefix(other))
    key = ec.generate_private_key(ec.SECP256R1())
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    (files / "sealed.pem").write_bytes(sealed)
    (files / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(Failed) as refused:
        call_command("gateway", "--port", "0", *[one.format(dir=files) for one in options])
    assert (told in str(refused.value), refused.value.returncode) == (True, 2), str(refused.value)


def test_gateway__workers_with_tls__all_of_them_renew_at_sighup(
    data_dir: dict[str, str], files: Path
) -> None:
    pem = put(files)
    cert, key = split(files)
    context = trusting(pem)

    def healthy(port: int) -> bool:
        with contextlib.suppress(OSError), Client(port, tls=context) as client:
            found = client.send(request("/gateway/health", "Connection: close")).answer()
            return found is not None and found.status == 200
        return False

    options = ("--workers", "2", "--tls-cert", str(cert), "--tls-key", str(key))
    with edge_process(data_dir, *options, is_up=healthy) as (process, port):
        newest = put(files)
        split(files)
        process.send_signal(signal.SIGHUP)
        context = trusting(newest)
        assert all(eventually(lambda: healthy(port)) for _ in range(8))
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert "tls_certificate_loaded" in said


def test_edge__tls__handshake_that_does_not_go_on__cut_like_headers_that_do_not(
    files: Path, upstream: OddUpstream, gateway_conf: Callable[..., None], prefix: str
) -> None:
    gateway_conf(HEADER_TIMEOUT_S=0.3)
    pem = put(files)
    certificate = Certificate(files / "edge.test.pem")
    with serving(usual_routes(upstream.port), prefix, certificate=certificate) as edge:
        began = time.monotonic()
        with edge.client() as silent, edge.client() as half:
            half.send(b"\x16\x03\x01\x02\x00\x01")  # the begin of a ClientHello
            assert (silent.ended(), half.ended()) == (True, True)
        assert time.monotonic() - began < 9  # the client's own patience is 10 s
        assert serves(edge.port, pem)


def test_edge__tls__handshakes_under_way__count_as_connections(
    files: Path,
    upstream: OddUpstream,
    gateway_conf: Callable[..., None],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For one too many the oldest is closed at once, and not when its patience is over."""
    gateway_conf(HEADER_TIMEOUT_S=600.0, MAX_CONNECTIONS=3)
    monkeypatch.setattr("gateway.listener.SPARE", 1)
    pem = put(files)
    with (
        serving(
            usual_routes(upstream.port), prefix, certificate=Certificate(files / "edge.test.pem")
        ) as edge,
        edge.client(tls=trusting(pem)) as known,
        contextlib.ExitStack() as stack,
    ):
        assert known.send(request("/api/echo")).answer() is not None
        silent, half = (stack.enter_context(edge.client()) for _ in range(2))
        half.send(b"\x16\x03\x01\x02\x00\x01")
        assert serves(edge.port, pem)
        assert silent.ended()
        assert serves(edge.port, pem)  # there is room again
        with edge.client() as third, edge.client() as fourth:
            assert (half.ended(), serves(edge.port, pem), third.ended()) == (True, True, True)
            fourth.close()
        assert known.send(request("/api/echo")).answer() is not None


def test_edge__tls__too_many_connections__the_next_is_told_so(
    files: Path, upstream: OddUpstream, gateway_conf: Callable[..., None], prefix: str
) -> None:
    gateway_conf(MAX_CONNECTIONS=1)
    pem = put(files)
    with (
        serving(
            usual_routes(upstream.port), prefix, certificate=Certificate(files / "edge.test.pem")
        ) as edge,
        edge.client(tls=trusting(pem)) as known,
    ):
        assert known.send(request("/api/echo")).answer() is not None
        with edge.client(tls=trusting(pem)) as late:
            answer = late.send(request("/api/echo")).answer()
        assert answer is not None
        assert (answer.status, answer.headers["x-brain-error"]) == (503, "overloaded")


def test_edge__tls__stops_in_the_middle_of_handshakes(
    files: Path, upstream: OddUpstream, gateway_conf: Callable[..., None], prefix: str
) -> None:
    gateway_conf(HEADER_TIMEOUT_S=600.0)
    put(files)
    with serving(
        usual_routes(upstream.port), prefix, certificate=Certificate(files / "edge.test.pem")
    ) as edge:
        silent = edge.client()
        half = edge.client().send(b"\x16\x03\x01\x02\x00\x01")
    with silent, half:
        assert (silent.ended(), half.ended()) == (True, True)


def test_handshakes__no_descriptor_left__a_pause_and_then_on(
    files: Path,
    upstream: OddUpstream,
    gateway_conf: Callable[..., None],
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pem, failing, accept = put(files), [True], socket.socket.accept
    monkeypatch.setattr("gateway.listener.PAUSE_S", 0.05)
    with serving(
        usual_routes(upstream.port), prefix, certificate=Certificate(files / "edge.test.pem")
    ) as edge:
        tried: list[bool] = []

        def short(listener: socket.socket) -> Any:
            if listener.getsockname()[1] == edge.port:
                tried.append(failing[0])
                if failing[0]:
                    raise OSError(errno.EMFILE, "too many open files")
            return accept(listener)

        monkeypatch.setattr(socket.socket, "accept", short)
        client = edge.client()
        assert eventually(lambda: len(tried) >= 2)
        failing[0] = False
        assert eventually(lambda: serves(edge.port, pem))
        client.close()
