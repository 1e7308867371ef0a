from __future__ import annotations

import pytest

from brain_project import broker


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("unix:///run/valkey.sock?db=3", "brain-redis+socket:///run/valkey.sock?virtual_host=3"),
        ("rediss://:pw@host:6380/1", "brain-rediss://:pw@host:6380/1"),
        ("stock+redis://host/1", "redis://host/1"),
        ("amqp://host//", "amqp://host//"),
    ],
)
def test_url__kinds_of_brokers__ours_for_redis_and_as_it_is_for_others(given: str, expected: str) -> None:
    assert broker.url(given) == expected


@pytest.mark.parametrize(
    "url", ["brain-redis+socket:///s?virtual_host=0", "brain-sentinel://h/0", "redis://h/0"]
)
def test_transport_options__kinds_of_redis__renew_and_check_health(url: str) -> None:
    options = broker.transport_options(url, "mymaster")
    assert (options["visibility_timeout"], options["master_name"]) == (300, "mymaster")


def test_transport_options__rabbitmq__confirms_what_is_published() -> None:
    assert broker.transport_options("amqp://h//") == {"confirm_publish": True}
