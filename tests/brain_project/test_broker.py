from __future__ import annotations

import pytest
from celery import current_app

from brain_project import broker


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("unix:///run/valkey.sock?db=3", "brain-redis+socket:///run/valkey.sock?virtual_host=3"),
        ("rediss://:pw@host:6380/1", "brain-rediss://:pw@host:6380/1"),
        ("stock-redis://host/1", "stock-redis://host/1"),
        ("amqp://host//", "amqp://host//"),
    ],
)
def test_url__kinds_of_brokers__ours_for_redis_and_as_it_is_for_others(given: str, expected: str) -> None:
    assert broker.url(given) == broker.url(broker.url(given)) == expected


@pytest.mark.parametrize(
    "url", ["brain-redis+socket:///s?virtual_host=0", "brain-sentinel://h/0", "stock-redis://h/0"]
)
def test_transport_options__kinds_of_redis__renew_and_check_health(url: str) -> None:
    options = broker.transport_options(url, "mymaster")
    assert (options["visibility_timeout"], options["master_name"]) == (300, "mymaster")


def test_transport_options__rabbitmq__confirms_what_is_published() -> None:
    assert broker.transport_options("amqp://h//") == {"confirm_publish": True}


def test_app__url_from_the_command_line_or_the_environment__goes_through_our_transport(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "CELERY_BROKER_URL", "valkey://127.0.0.1:1/3"
    )  # where `celery -b`, and BROKER_URL, end up
    for connection in (current_app.connection_for_read(), current_app.connection_for_write()):
        assert (connection.transport_cls, connection.virtual_host) == ("brain-redis", "3")
