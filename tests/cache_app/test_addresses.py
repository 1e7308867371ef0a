from __future__ import annotations

import pytest

from cache_app.addresses import CLUSTER, SENTINEL, SINGLE, dial_options, of_alias, parse, replicas_of


@pytest.mark.parametrize(
    ("url", "read", "name"),
    [
        ("valkey://h:1/2", "redis://h:1/2", "h:1"),
        ("valkeys://u:p@h:1/2?ssl_cert_reqs=none", "rediss://u:p@h:1/2?ssl_cert_reqs=none", "h:1"),
        ("unix:///run/s?db=2&password=x", "unix:///run/s?db=2&password=x", "/run/s"),
    ],
)
def test_parse__one_server__is_redis_pys_url_and_a_name_without_secrets(
    url: str, read: str, name: str
) -> None:
    servers = parse(url)
    assert (servers.kind, servers.url, servers.name) == (SINGLE, read, name)


def test_parse__cluster__has_its_nodes_and_the_first_ones_url() -> None:
    servers = parse("valkeys+cluster://u:p%40@a:1,[::1]:2,b?ssl_cert_reqs=none")
    assert servers.kind == CLUSTER
    assert servers.nodes == (("a", 1), ("::1", 2), ("b", 6379))
    assert servers.url == "rediss://u:p%40@a:1/0?ssl_cert_reqs=none"
    assert servers.name == "a:1,::1:2,b:6379"


def test_parse__sentinels__have_a_service_and_a_database() -> None:
    servers = parse("redis+sentinel://:p@a,b:2/main/3?socket_timeout=1")
    assert servers.kind == SENTINEL
    assert (servers.nodes, servers.service) == ((("a", 26379), ("b", 2)), "main")
    assert servers.url == "redis://:p@main/3?socket_timeout=1"
    assert "p@" not in servers.name.removeprefix("main@")


@pytest.mark.parametrize("url", ["http+cluster://h", "redis+cluster://", "redis+sentinel://h", "redis+x://h"])
def test_parse__no_servers__is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|names no"):
        parse(url)


@pytest.mark.parametrize(
    ("location", "options", "url"),
    [
        ("redis://a:1/0", {}, "redis://a:1/0"),
        ("redis://a:1/0,redis://b:1/0", {}, "redis://a:1/0"),
        (["redis://a:1/0", "redis://b:1/0"], {}, "redis://a:1/0"),
        ("redis://u:p@a:1,redis://u:p@b:2/0", {"CLUSTER": True}, "redis+cluster://u:p@a:1,b:2"),
        ("rediss://a:1/0?x=1", {"CLUSTER": True}, "rediss+cluster://a:1/0?x=1"),
        ("redis+cluster://a:1,b:2", {"CLUSTER": True}, "redis+cluster://a:1,b:2"),
        (
            "redis://main/4?is_master=1&x=2",
            {"SENTINELS": [("s", 1), ("::1", 2)]},
            "redis+sentinel://s:1,[::1]:2/main/4?x=2",
        ),
        (
            "redis://any:9/0",
            {"SENTINELS": [("s", 1)], "SENTINEL_SERVICE": "main"},
            "redis+sentinel://s:1/main/0",
        ),
        ("redis://a/0", {"PASSWORD": "p/w&"}, "redis://a/0?password=p%2Fw%26"),
        ("unix:///s?db=1", {"USERNAME": "u", "PASSWORD": "p"}, "unix:///s?db=1&username=u&password=p"),
        ("redis://:own@a/0", {"PASSWORD": "other"}, "redis://:own@a/0"),
    ],
)
def test_of_alias__location_and_options__are_one_url(location: object, options: dict, url: str) -> None:
    assert of_alias(location, options) == url
    parse(url)


def test_replicas_of__listed__are_all_but_the_first() -> None:
    assert replicas_of("redis://a,redis://b,redis://c") == ["redis://b", "redis://c"]
    assert replicas_of("redis+cluster://a,b") == []


def test_dial_options__django_redis_names__without_whatever_sends_a_command_again() -> None:
    options = {
        "SOCKET_TIMEOUT": 2,
        "SOCKET_CONNECT_TIMEOUT": None,
        "CONNECTION_POOL_KWARGS": {"max_connections": 7, "retry_on_timeout": True},
    }
    assert dial_options(options) == {"socket_timeout": 2, "max_connections": 7}
