from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from gateway import edits
from gateway.edits import Edits, RequestHead, ResponseHead, Spec
from gateway.errors import BadBody
from gateway.routing import BadPath

JSON = (b"Content-Type", b"application/json; charset=utf-8")


def compiled(*, request: Any = None, response: Any = None) -> Edits:
    found = edits.compile([Spec(request or {}, response or {})])
    assert found is not None
    return found


def sent(spec: Any, **values: Any) -> RequestHead:
    """The request's head after the edits."""
    head = RequestHead(**values)
    compiled(request=spec).request_head(head)
    return head


def body_of(spec: Any, body: Any, **values: Any) -> Any:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return orjson.loads(
        compiled(request={"body": spec}).request_body(raw, RequestHead(headers=[JSON], **values))
    )


def wrong(spec: Any, phase: str = "request", parameters: Any = None) -> str:
    return "\n".join(edits.problems(spec, phase, parameters))


# --- headers ---


def test_headers__all_verbs__in_their_order() -> None:
    spec = {
        "headers": {
            "remove": ["x-secret", "Cookie"],
            "rename": {"X-Old": "X-New"},
            "replace": {"X-There": "1", "X-Absent": "1"},
            "set": {"X-Caller": "{consumer.name}/{consumer.id}"},
            "add": {"X-There": "2", "X-Fresh": "3"},
            "append": {"X-Many": "b"},
        }
    }
    headers = [
        (b"X-SECRET", b"s"), (b"cookie", b"c"), (b"x-old", b"o"), (b"X-New", b"n"), (b"x-there", b"0"),
        (b"x-caller", b"forged"), (b"X-Many", b"a"), (b"Accept", b"*/*"),
    ]  # fmt: skip
    assert sent(spec, headers=headers, consumer_name="ann", consumer_id="key:ann").headers == [
        (b"X-New", b"o"), (b"X-Many", b"a"), (b"Accept", b"*/*"), (b"X-There", b"1"),
        (b"X-Caller", b"ann/key:ann"), (b"X-Fresh", b"3"), (b"X-Many", b"b"),
    ]  # fmt: skip


def test_headers__a_placeholder_without_a_value__nothing_is_set_and_the_clients_own_is_gone() -> None:
    spec = {"headers": {"set": {"X-Caller": "user {consumer.name}"}, "add": {"X-A": "{query.a}"}}}
    assert sent(spec, headers=[(b"X-Caller", b"admin")]).headers == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"x=a%0d%0aX-Admin:%201", b"a%0D%0AX-Admin: 1"),
        (b"x=a%00b", b"a%00b"),
        (b"x=%20%20a%20", b"a"),
        (b"x=gr%C3%BC%C3%9Fe", b"gr%C3%BC%C3%9Fe"),
        (b"x=%FF", b"%C3%BF"),
        (b"x=a+b%2Bc", b"a b+c"),
    ],
)
def test_headers__a_value_from_the_query__cannot_become_a_second_header(
    query: bytes, expected: bytes
) -> None:
    assert sent({"headers": {"set": {"X-A": "{query.x}"}}}, query=query).headers == [(b"X-A", expected)]


def test_headers__placeholders__read_the_request_as_it_was_before_this_transformation() -> None:
    first = {"headers": {"set": {"X-A": "{header.X-B}", "X-B": "{header.X-A}"}}, "query": {"remove": ["q"]}}
    second = {"headers": {"set": {"X-C": "{header.x-a}{query.q}"}, "add": {"X-D": "{header.x-a}"}}}
    both = edits.compile([Spec(first), Spec(second)])
    head = RequestHead(headers=[(b"X-A", b"1"), (b"X-B", b"2")], query=b"q=1")
    assert both is not None
    both.request_head(head)
    assert head.headers == [(b"X-A", b"2"), (b"X-B", b"1"), (b"X-D", b"2")]  # X-C: there is no q any more
    assert head.query == b""


def test_templates__braces_and_every_source__filled_in() -> None:
    template = "{{{path.id}}} {request_id} {client_ip} {header.Accept} {query.a b}"
    head = sent(
        {"headers": {"set": {"X-All": template}}},
        params={"id": "17"}, request_id="r1", client_ip="::1", headers=[(b"accept", b"x"), (b"Accept", b"y")],
        query=b"a+b=c",
    )  # fmt: skip
    assert head.headers[-1] == (b"X-All", b"{17} r1 ::1 x, y c")


# --- query ---


def test_query__edits__other_parameters_keep_their_spelling() -> None:
    spec = {
        "query": {
            "remove": ["token"],
            "rename": {"old": "new name"},
            "set": {"who": "{consumer.name}"},
            "add": {"page": "1", "lang": "de"},
            "append": {"tag": "b&c"},
        }
    }
    query = b"%74oken=s&old=1+2&who=forged&page=7&tag=a&flag&odd=%7e"
    assert sent(spec, query=query, consumer_name="ann b").query == (
        b"new+name=1+2&page=7&tag=a&flag&odd=%7e&who=ann+b&lang=de&tag=b%26c"
    )


def test_query__nothing_there__only_what_is_added() -> None:
    assert sent({"query": {"remove": ["a"], "add": {"b": "1"}}}).query == b"b=1"


# --- path ---


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/api/v1/x", b"/v2/x"),
        (b"/api/v1", b"/v2"),
        (b"/%61pi/v1/a%20b", b"/v2/a%20b"),
        (b"/api/v1x", b"/api/v1x"),
        (b"/other", b"/other"),
    ],
)
def test_path__prefixes__cut_on_a_segment_boundary_however_escaped(path: bytes, expected: bytes) -> None:
    assert sent({"path": {"strip_prefix": "/api/v1", "add_prefix": "/v2"}}, path=path).path == expected


def test_path__strip_or_add_alone() -> None:
    assert sent({"path": {"strip_prefix": "/api"}}, path=b"/api").path == b"/"
    assert sent({"path": {"add_prefix": "/v2"}}, path=b"/x/").path == b"/v2/x/"


def test_path__template__values_are_escaped_and_rest_keeps_its_slashes() -> None:
    spec = {"path": {"template": "/v2/{path.rest}/of/{query.who}"}}
    head = sent(spec, path=b"/a", params={"rest": "x y/ü"}, query=b"who=a%3Fb")
    assert head.path == b"/v2/x%20y/%C3%BC/of/a%3Fb"
    assert sent(spec, path=b"/a", params={"rest": "x"}).path == b"/a"  # no ?who: the path stays


@pytest.mark.parametrize("value", [b"..", b"%2e%2e", b"a%2fb", b"%00", b".", b"..%2F..%2Fadmin", b"%5c"])
def test_path__a_value_that_would_lead_elsewhere__refused(value: bytes) -> None:
    with pytest.raises(BadPath):
        sent({"path": {"template": "/tenants/{query.t}/x"}}, query=b"t=" + value)


def test_path__pattern__from_the_start_with_groups() -> None:
    spec = {"path": {"replace": {"pattern": "/users/([^/]+)/(?P<what>[a-z]+)", "with": "/{what}/{1}"}}}
    assert sent(spec, path=b"/users/a%20b/orders/9").path == b"/orders/a%20b/9"
    assert sent(spec, path=b"/x/users/a/orders").path == b"/x/users/a/orders"
    assert sent({"path": {"replace": {"pattern": "/api", "with": ""}}}, path=b"/api").path == b"/"
    optional = {"path": {"replace": {"pattern": "/a(/b)?$", "with": "/c{1}"}}}
    assert sent(optional, path=b"/a").path == b"/c"


def test_path__pattern_that_would_explode_in_a_backtracking_engine__linear() -> None:
    spec = {"path": {"replace": {"pattern": "/(a+)+$", "with": "/{1}"}}}
    path = b"/" + b"a" * 8000 + b"!"
    assert sent(spec, path=path).path == path


# --- bodies ---


def test_body__remove_rename_replace_set_add__nested_and_in_lists() -> None:
    spec = {
        "remove": ["a.secret", "items[].secret", "none.at.all"],
        "rename": {"items[].id": "key"},
        "replace": {"a.there": "new", "a.absent": "new"},
        "set": {"meta.caller": "{consumer.name}", "items[].seen": True, "limits": {"max": [1, None]}},
        "add": {"a.there": "not me", "lang": "de"},
    }
    body = {"a": {"secret": 1, "there": 0}, "items": [{"id": 1, "secret": 2}, 7, {"id": 2}], "meta": "forged"}
    assert body_of(spec, body, consumer_name="ann") == {
        "a": {"there": "new"},
        "items": [{"key": 1, "seen": True}, 7, {"key": 2, "seen": True}],
        "meta": {"caller": "ann"},
        "limits": {"max": [1, None]},
        "lang": "de",
    }


def test_body__one_placeholder__keeps_its_type_and_text_around_it_does_not() -> None:
    spec = {
        "set": {"n": "{body.a.n}", "o": "{body.o}", "t": "{body.a.n}!", "l": "{body.o}", "gone": "{body.x}"}
    }
    made = body_of(spec, {"a": {"n": 1.5}, "o": {"x": [1]}, "gone": "old"})
    assert made == {"a": {"n": 1.5}, "o": {"x": [1]}, "n": 1.5, "t": "1.5!", "l": {"x": [1]}}


def test_body__an_object_in_two_places__is_not_shared() -> None:
    first, second = (
        {"set": {"copy": "{body.a}", "l[].o": {"n": 0}}},
        {"set": {"a.n": 2}, "add": {"l[].o.x": 1}},
    )
    both = edits.compile([Spec({"body": first}), Spec({"body": second})])
    assert both is not None
    for _ in range(2):  # nor between requests
        made = orjson.loads(both.request_body(b'{"a":{"n":1},"l":[{},{}]}', RequestHead(headers=[JSON])))
        assert made["copy"] == {"n": 1}
        assert made["l"] == [{"o": {"n": 0, "x": 1}}] * 2


def test_body__names_with_dots_and_a_list_at_the_top() -> None:
    assert body_of({"rename": {r"a\.b": r"c\[\]"}}, {"a.b": 1}) == {"c[]": 1}
    assert body_of({"remove": ["[].x"]}, [{"x": 1, "y": 2}]) == [{"y": 2}]


@pytest.mark.parametrize(
    "number",
    [
        "123456789012345678901234567890", "18446744073709551616", "-9223372036854775809", "0.1000000000000000055511",
        "1e5", "1E400", "-0", "1.10", "9007199254740993", "12345678901234567.5", "-0.0", "3",
    ],
)  # fmt: skip
def test_body__numbers__never_change_their_value(number: str) -> None:
    plain = compiled(request={"body": {"set": {"s": "{body.n}!", "c": "{body.n}"}}})
    made = plain.request_body(b'{"n":%s}' % number.encode(), RequestHead(headers=[JSON])).decode()
    kept = number if number != "1.10" else "1.1"
    if number == "-0":  # a number to orjson, which knows no negative whole zero
        kept = "0"
    assert made == f'{{"n":{kept},"s":"{kept}!","c":{kept}}}'


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"nul", b'{"a":NaN}', b'{"a":1,}', b"\xff", b'{"a":"\\ud800"}', b'{"n":1234567890123456789,"a":"\\ud800"}',
        b'{"n":1234567890123456789,"a":Infinity}', b"[" * 300 + b"]" * 300, b"[" * 100_000,
        b'{"n":12345678901234567890,"d":' + b"[" * 100_000, b'\xef\xbb\xbf{"a":1}', "{}".encode("utf-16"),
    ],
)  # fmt: skip
def test_body__no_json__400(body: bytes) -> None:
    with pytest.raises(BadBody) as raised:
        compiled(request={"body": {"remove": ["x"]}}).request_body(body, RequestHead(headers=[JSON]))
    assert raised.value.status == 400


def test_body__set_in_something_that_is_no_object__400() -> None:
    with pytest.raises(BadBody):
        body_of({"set": {"caller": "x"}}, [1])
    assert body_of({"remove": ["a"], "add": {"b": 1}}, [1]) == [1]


def test_body__compressed__415_as_the_edits_would_be_gone_past() -> None:
    head = RequestHead(headers=[JSON, (b"content-encoding", b"gzip")])
    with pytest.raises(BadBody) as raised:
        compiled(request={"body": {"remove": ["x"]}}).request_body(b"\x1f\x8b", head)
    assert raised.value.status == 415


def test_body__many_elements__growth_is_bounded() -> None:
    body = b'{"big":"' + b"x" * 100_000 + b'","l":[' + b"{}," * 5000 + b"{}]}"
    with pytest.raises(BadBody, match="too many"):
        body_of({"set": {"l[].copy": "{body.big}"}}, body)


def test_body__many_elements_and_many_edits__their_growth_together_is_bounded() -> None:
    body = b"[" + b"{}," * 5000 + b"{}]"
    verbs = {f"[].a{n}": "x" * 40 for n in range(4)}
    body_of({"set": verbs}, body)
    with pytest.raises(BadBody, match="too many"):
        body_of({"set": verbs, "add": {f"[].b{n}": "x" * 40 for n in range(4)}}, body)


def test_body__empty__stays_empty() -> None:
    assert compiled(request={"body": {"remove": ["x"]}}).request_body(b"", RequestHead()) == b""


def test_wants_body__json_types_only() -> None:
    good = (b"application/json", b"Application/JSON ; charset=utf-8", b"application/problem+json")
    assert all(edits.wants_body(kind) for kind in good)
    bad = (
        None,
        b"",
        b"text/html",
        b"application/x-ndjson",
        b"text/event-stream",
        b"multipart/form-data; x=application/json",
    )
    assert not any(edits.wants_body(kind) for kind in bad)


def test_wants_body__two_types__json_as_one_of_them_is_enough() -> None:
    headers = [(b"Content-Type", b"text/plain"), (b"content-type", b"application/json; charset=utf-8")]
    assert edits.wants_body(edits.content_type(headers))
    assert edits.wants_body(edits.content_type([(b"Content-Type", b"text/plain, application/json")]))
    assert not edits.wants_body(edits.content_type(headers[:1]))
    assert edits.content_type([]) is None


# --- responses ---


def test_response__head_and_body__edited_with_what_the_request_knew() -> None:
    found = compiled(
        response={
            "status": {"map": {"404": 410}},
            "headers": {"remove": ["Server"], "set": {"X-Was": "{status} {header.X-A} {path.id}"}},
            "body": {"remove": ["items[].secret"], "set": {"for": "{consumer.name}"}},
        }
    )
    request = RequestHead(
        headers=[(b"Accept-Encoding", b"gzip"), (b"Range", b"bytes=0-9")],
        consumer_name="ann",
        params={"id": "7"},
    )
    found.request_head(request)
    assert request.headers == [(b"Accept-Encoding", b"identity")]
    head = ResponseHead(404, [JSON, (b"Server", b"x"), (b"X-A", b"a"), (b"ETag", b'"1"'), (b"Digest", b"d")])
    found.response_head(head, request)
    assert head.status == 410
    assert head.headers == [JSON, (b"X-A", b"a"), (b"ETag", b'W/"1"'), (b"X-Was", b"404 a 7")]
    assert found.response_body(b'{"items":[{"secret":1}]}', head, request) == b'{"items":[{}],"for":"ann"}'
    assert head.untouched == ""


@pytest.mark.parametrize(
    ("status", "headers", "body", "why"),
    [
        (200, [JSON], b"<html>", "not JSON"),
        (200, [JSON, (b"Content-Encoding", b"br")], b"{}", "encoded"),
        (206, [JSON], b"{}", "partial"),
        (200, [JSON], b"[1]", "not editable"),
    ],
)
def test_response_body__that_cannot_be_read__untouched_and_said_so(
    status: int, headers: Any, body: bytes, why: str
) -> None:
    found = compiled(response={"body": {"set": {"a": 1}}})
    head = ResponseHead(status, headers)
    assert found.response_body(body, head, RequestHead()) == body
    assert head.untouched == why


def test_response__other_type_or_no_body_edit__its_etag_stays_strong() -> None:
    found = compiled(response={"body": {"remove": ["a"]}})
    head = ResponseHead(200, [(b"Content-Type", b"text/html"), (b"ETag", b'"1"')])
    found.response_head(head, RequestHead())
    assert head.headers[-1] == (b"ETag", b'"1"')


def test_request_head__body_will_be_edited__its_digest_is_gone() -> None:
    found = compiled(request={"body": {"remove": ["a"]}})
    head = RequestHead(headers=[JSON, (b"Content-Digest", b"x")])
    found.request_head(head)
    assert head.headers == [JSON]
    other = RequestHead(headers=[(b"Content-Type", b"text/csv"), (b"Content-Digest", b"x")])
    found.request_head(other)
    assert len(other.headers) == 2


# --- compile and problems ---


def test_compile__flags__say_what_has_to_be_called() -> None:
    assert edits.compile([Spec(), Spec()]) is None

    def flags(**spec: Any) -> tuple[bool, ...]:
        e = compiled(**spec)
        return (e.edits_request_head, e.edits_request_body, e.edits_response_head, e.edits_response_body)

    assert flags(request={"query": {"remove": ["a"]}}) == (True, False, False, False)
    assert flags(request={"body": {"remove": ["a"]}}) == (True, True, False, False)
    assert flags(response={"status": {"map": {404: 410}}}) == (False, False, True, False)
    assert flags(response={"body": {"remove": ["a"]}}) == (True, False, True, True)


def test_compile__a_spec_with_problems__raises() -> None:
    with pytest.raises(ValueError, match=r"request\.headers\.set\.Host"):
        edits.compile([Spec({"headers": {"set": {"Host": "x"}}})])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ([], "request: is a mapping"),
        ({"header": {}}, "request.header: unknown key; did you mean 'headers'?"),
        ({"headers": {"set": ["X-A"]}}, "request.headers.set: is a mapping of names, not ['X-A']"),
        ({"headers": {"remove": "X-A"}}, "request.headers.remove: is a list of names, not 'X-A'"),
        ({"headers": {"remove": [7]}}, "request.headers.remove: is a text, not 7"),
        ({"headers": {"set": {"X-A": 7}}}, "request.headers.set.X-A: is a text, not 7"),
        ({"headers": {"set": {"X-A": "{nobody}"}}}, "request.headers.set.X-A: unknown placeholder {nobody}; known here are {client_ip}"),
        ({"headers": {"set": {"X-A": "{body.a}"}}}, "unknown placeholder {body.a}"),
        ({"headers": {"set": {"X-A": "{status}"}}}, "unknown placeholder {status}"),
        ({"headers": {"set": {"X-A": "{consumer.key}"}}}, "'key' is no name of a consumer value"),
        ({"headers": {"set": {"X-A": "a{path.id"}}}, "a single '{' at character 2"),
        ({"headers": {"set": {"X-A": "a}"}}}, "a single '}' at character 2"),
        ({"headers": {"set": {"X-A": "a\r\nX-B: 1"}}}, "request.headers.set.X-A: a header has visible ASCII"),
        ({"headers": {"set": {"X-A": "ü"}}}, "visible ASCII"),
        ({"headers": {"set": {"X-A": " "}}}, "has no spaces around it"),
        ({"headers": {"set": {"X-A": "x" * 3000}}}, "at most 2048 characters"),
        ({"headers": {"set": {"X_A": "1"}}}, "'X_A' is no name of a header"),
        ({"headers": {"set": {"X A": "1"}}}, "'X A' is no name of a header"),
        ({"headers": {"add": {"Transfer-Encoding": "chunked"}}}, "Transfer-Encoding is the gateway's own"),
        ({"headers": {"remove": ["content-length"]}}, "content-length is the gateway's own"),
        ({"headers": {"rename": {"X-Me": "X-Consumer-Id"}}}, "request.headers.rename.X-Me: X-Consumer-Id is the gateway's own"),
        ({"headers": {"append": {"x-forwarded-for": "1.1.1.1"}}}, "x-forwarded-for is the gateway's own"),
        ({"headers": {"replace": {"Host": "a"}}}, "Host is the gateway's own"),
        ({"headers": {"remove": [f"X-{i}" for i in range(101)]}}, "request.headers.remove: at most 100"),
        ({"query": {"set": {"": "x"}}}, "'' is no name of a parameter"),
        ({"path": {}}, "request.path: give strip_prefix and/or add_prefix, or replace, or template"),
        ({"path": {"strip_prefix": "/a", "template": "/b"}}, "request.path: give"),
        ({"path": {"strip_prefix": "api"}}, "request.path.strip_prefix: a prefix is /a/path"),
        ({"path": {"add_prefix": "/../x"}}, "request.path.add_prefix: a dot segment"),
        ({"path": {"template": "v2/{path.id}"}}, "request.path.template: a path starts with '/'"),
        ({"path": {"template": "/v2/../{path.id}"}}, "request.path.template: a dot segment"),
        ({"path": {"template": "/v2?a={path.id}"}}, "request.path.template: a path has no '?'"),
        ({"path": {"replace": {"pattern": "(", "with": "/"}}}, "request.path.replace: no pattern for RE2"),
        ({"path": {"replace": {"pattern": r"/(a)\1", "with": "/"}}}, "request.path.replace: no pattern for RE2"),
        ({"path": {"replace": {"pattern": "/(a)", "with": "/{2}"}}}, "the pattern has no group '2'"),
        ({"path": {"replace": {"pattern": "/(a)", "with": r"/\1"}}}, "a group is written {1}"),
        ({"path": {"replace": {"pattern": "x" * 300, "with": "/"}}}, "at most 256 characters"),
        ({"path": {"replace": {"with": "/"}}}, "request.path.replace.pattern: is a text, not None"),
        ({"body": {"remove": ["a[]"]}}, "request.body.remove: 'a[]': a place in JSON ends with a name"),
        ({"body": {"remove": ["a..b"]}}, "'a..b' is not a place in JSON"),
        ({"body": {"remove": ["a.[]"]}}, "request.body.remove"),
        ({"body": {"remove": ["a[]b"]}}, "request.body.remove"),
        ({"body": {"remove": [""]}}, "request.body.remove"),
        ({"body": {"remove": ["a."]}}, "request.body.remove"),
        ({"body": {"remove": [".a"]}}, "request.body.remove"),
        ({"body": {"remove": ["a[0]"]}}, "request.body.remove"),
        ({"body": {"remove": [".".join("a" * 21)]}}, "at most 20 steps"),
        ({"body": {"rename": {"a.b": "c.d"}}}, "request.body.rename.a.b: the new name alone"),
        ({"body": {"set": {"a": "{body.l[].x}"}}}, "a placeholder is one value"),
        ({"body": {"set": {"a": {1, 2}}}}, "request.body.set.a: "),
        ({"body": {"append": {"a": 1}}}, "request.body.append: unknown key"),
        ({"status": {"map": {}}}, "request.status: unknown key"),
    ],
)  # fmt: skip
def test_problems__a_mistake__named_by_the_path_to_its_key(spec: Any, told: str) -> None:
    assert told in wrong(spec)


def test_problems__of_a_response() -> None:
    assert "response.status.map.404: a status" in wrong({"status": {"map": {"404": 204}}}, "response")
    assert "response.status.map.99: a status" in wrong({"status": {"map": {"99": 200}}}, "response")
    assert "X-Request-Id is the gateway's own" in wrong({"headers": {"remove": ["X-Request-Id"]}}, "response")
    assert "response.path: unknown key" in wrong({"path": {"add_prefix": "/a"}}, "response")
    assert (
        wrong({"headers": {"set": {"X-A": "{status}"}}, "body": {"set": {"a": "{body.b}"}}}, "response") == ""
    )


def test_problems__parameters_of_the_route__unknown_ones_are_named_when_they_are_known() -> None:
    spec = {"path": {"template": "/{path.id}/{path.no}"}, "headers": {"set": {"X-A": "{path.nix}"}}}
    assert wrong(spec) == ""
    assert wrong(spec, parameters=("id",)).splitlines() == [
        "request.headers.set.X-A: the route's path has no {nix}",
        "request.path.template: the route's path has no {no}",
    ]


def test_problems__several__all_at_once() -> None:
    assert len(wrong({"headers": {"set": {"Host": "{x}"}}, "query": 1, "pat": {}}).splitlines()) == 4


# --- the documentation ---


def test_docs__their_example__has_no_problems() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gateway-transforms.md").read_text()
    example = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["transforms"]
    assert example[0]["request"].keys() == {"headers", "path", "query", "body"}
    for transform in example:
        for phase in edits.PHASES:
            assert edits.problems(transform.get(phase, {}), phase, ("id",)) == []
