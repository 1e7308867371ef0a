"""Which broker URL a server's URL becomes, and that Kombu reads every part of it."""

from __future__ import annotations

import pytest
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES

from queue_app import transport
from queue_app.transport import register, transport_url
from queue_app.transport.connection import SentinelTransport, TLSTransport, Transport


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", "brain-redis://h/0"),
        ("redis://h:6380/3", "brain-redis://h:6380/3"),
        ("redis://u:p%40x@h:6380?db=2", "brain-redis://u:p%40x@h:6380/2"),
        ("valkey://h:1/1", "brain-redis://h:1/1"),
        ("rediss://:s@h/0", "brain-rediss://:s@h/0"),
        ("valkeys://h/0?ssl_ca_certs=/ca.pem", "brain-rediss://h/0?ssl_ca_certs=%2Fca.pem"),
        ("unix:///run/v.sock?db=4", "brain-redis+socket:///run/v.sock?virtual_host=4"),
        ("unix:///run/v.sock", "brain-redis+socket:///run/v.sock?virtual_host=0"),
        ("unix:///s?password=a/b", "brain-redis+socket://:a%2Fb@/s?virtual_host=0"),
        ("redis+socket:///s?virtual_host=1", "brain-redis+socket:///s?virtual_host=1"),
        ("sentinel://a:1/0;sentinel://b:2/0", "brain-sentinel://a:1/0;brain-sentinel://b:2/0"),
        ("redis://a/0;redis://b/0", "brain-redis://a/0;brain-redis://b/0"),
        ("brain-redis://h/0", "brain-redis://h/0"),
        ("amqp://u:p@h//", "amqp://u:p@h//"),
        ("memory://", "memory://"),
    ],
)
def test_transport_url__each_kind__is_mapped(url: str, expected: str) -> None:
    assert transport_url(url) == expected
    assert transport_url(expected) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h/0?max_connections=5", "cannot carry max_connections"),
        ("redis://h/0?ssl_cert_reqs=none", "cannot carry ssl_cert_reqs"),
        ("redis+cluster://h:7000", "Redis Cluster cannot be the broker; name one server"),
        ("redis+sentinel://h:26379/main/0", "sentinel://host:26379/0.*BRAIN_SENTINEL_MASTER"),
        ("redis://a/0;amqp://b", "one scheme"),
        ("redis://a/0;rediss://b/0", "one scheme"),
    ],
)
def test_transport_url__what_a_broker_cannot_be__is_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        transport_url(url)


def test_transport_url__password__is_not_in_the_error() -> None:
    with pytest.raises(ValueError) as caught:
        transport_url("redis://:sesame@h/0?max_connections=5")
    assert "sesame" not in str(caught.value)


def test_register__kombu__reads_every_part_of_the_url() -> None:
    register()
    connection = Connection(transport_url("redis://u:p%40x@h:6380/3"))
    parts = (
        connection.hostname,
        connection.port,
        connection.userid,
        connection.password,
        connection.virtual_host,
    )
    assert parts == ("h", 6380, "u", "p@x", "3")
    assert connection.as_uri() == "brain-redis://u:**@h:6380/3"
    assert isinstance(connection.transport, Transport)
    assert connection.transport.driver_type == "redis"
    assert connection.clone().as_uri(include_password=True) == "brain-redis://u:p%40x@h:6380/3"


def test_register__alternates__are_all_ours() -> None:
    connection = Connection(transport_url("redis://a:1/0;redis://b:2/1"))
    connection.switch(next(connection.cycle))
    assert (connection.hostname, connection.port, connection.virtual_host) == ("b", 2, "1")
    assert isinstance(connection.transport, Transport)


def test_register__other_schemes__have_their_own_transport() -> None:
    assert isinstance(Connection(transport_url("rediss://h")).transport, TLSTransport)
    assert isinstance(Connection(transport_url("sentinel://h")).transport, SentinelTransport)
    assert TRANSPORT_ALIASES["redis"] == "kombu.transport.redis:Transport"


@pytest.mark.parametrize(
    "options",
    [{"ack_emulation": False}, {"visibility_timeout": 0}, {"claim_batch": 0}, {"delivery_limit": None}],
)
def test_transport__options_that_lose_messages__are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        _ = Connection(transport_url("redis://h"), transport_options=options).transport


def test_package__unknown_name__is_an_attribute_error() -> None:
    assert transport.UnsuitableServer.__name__ == "UnsuitableServer"
    with pytest.raises(AttributeError, match="nothing"):
        _ = transport.nothing
