"""Base64url and JSON of a token: what is refused, and that the fast reader is the strict one."""

from __future__ import annotations

import json
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest

from gateway.segments import Malformed, decode64, encode64, members, members_strictly

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("size", range(9))
def test_decode64__what_was_encoded__comes_back(size: int) -> None:
    data = bytes(range(250, 250 + size)) if size < 6 else bytes(range(size))
    assert encode64(data) == urlsafe_b64encode(data).rstrip(b"=")
    assert decode64(encode64(data)) == data


@pytest.mark.parametrize(
    "segment",
    [
        b"A",
        b"QUJDR",
        b"QQ==",
        b"QQ=",
        b"QUI\n",
        b" QUI",
        b"Q UI",
        b"a+/b",
        b"a.bb",
        b"QUI\x00",
        b"QUJD!!!!",
        b"QU\n\n\n\nJD",
        b"\xc3\xa9QU",
    ],
)
def test_decode64__not_base64url__malformed(segment: bytes) -> None:
    with pytest.raises(Malformed):
        decode64(segment)


def test_decode64__every_last_character__one_spelling_of_each_value() -> None:
    for size in (1, 2):
        spellings = {}
        for last in ALPHABET:
            segment = encode64(bytes(size))[:-1] + bytes([last])
            try:
                spellings[segment] = decode64(segment)
            except Malformed:
                continue
        assert len(spellings) == len(set(spellings.values())) == 4**size
        assert all(encode64(value) == segment for segment, value in spellings.items())


REFUSED = {
    "nothing": b"",
    "a list": b"[]",
    "a text": b'"a"',
    "two values": b"{}{}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "a lone high surrogate": b'{"a":"\\ud800"}',
    "a lone low surrogate": b'{"a":"\\udc00"}',
    "a lone surrogate as a name": b'{"\\ud800":1}',
    "surrogates the wrong way round": b'{"a":"\\udc00\\ud800"}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "1e999": b'{"a":1e999}',
    "an integer of 400 digits": b'{"a":1' + b"0" * 400 + b"}",
    "an integer of 5000 digits": b'{"a":1' + b"0" * 5000 + b"}",
    "a leading zero": b'{"a":01}',
    "single quotes": b"{'a':1}",
    "a comment": b'{"a":1/**/}',
    "a trailing comma": b'{"a":1,}',
    "a control character": b'{"a":"\x01"}',
    "a form feed": b'\x0c{"a":1}',
    "a NUL at the end": b'{"a":1}\x00',
    "a member twice": b'{"a":1,"a":1}',
    "a member twice, spaced out": b'{"a" :1,"a":1}',
    "a member twice, one escaped": b'{"a":1,"\\u0061":1}',
    "an empty name twice": b'{"":1,"":2}',
    "a member twice, further down": b'{"a":{"b":1,"b":2}}',
    "a member twice, in a list": b'{"a":[{"b":1,"b":2}]}',
    "a member twice, the first an object": b'{"a":{"b":1},"a":2}',
    "a member twice, hidden behind a text": b'{"x":"\\":\\":","a":1,"a":2}',
    "too deep": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    "much too deep": b'{"a":' + b"[" * 4000 + b"]" * 4000 + b"}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_members__not_one_thing_to_every_reader__malformed(name: str) -> None:
    for read in (members, members_strictly):
        with pytest.raises(Malformed) as caught:
            read(REFUSED[name])
        assert not any(ord(c) > 126 for c in str(caught.value))


def test_members__unusual_but_good__read() -> None:
    text = b' { "a" : "\\":" ,\n"b\\"":[ ] ,"c":1.0e3,"d":18446744073709551616,"\\u00e9":"\\ud83d\\ude00","f":-0}'
    expected = {"a": '":', 'b"': [], "c": 1000.0, "d": 2.0**64, "é": "😀", "f": 0}
    assert members(text) == members_strictly(text) == expected


def test_members__random_texts__as_the_strict_reader() -> None:
    """Texts of few names, so that they meet; random spelling; then random damage."""
    dice = random.Random(20261126)
    verdicts = {"same": 0, "refused": 0, "twice": 0}
    for _ in range(20_000):
        text = _object(dice, 0).encode()
        if dice.random() < 0.4:
            text = _damaged(dice, text)
        fast, (strict, reason) = _read(members, text)[0], _read(members_strictly, text)
        assert fast == strict, text
        verdicts["same" if strict else "refused"] += 1
        verdicts["twice"] += "twice" in reason
    assert verdicts["same"] > 5000
    assert verdicts["twice"] > 1500
    assert verdicts["refused"] > verdicts["twice"] + 1000


def _read(read: Callable[[bytes], dict[str, Any]], text: bytes) -> tuple[str, str]:
    """The order of members and the types of numbers count too: what was read, or why not."""
    try:
        return json.dumps(read(text)), ""
    except Malformed as error:
        return "", str(error)


def _object(dice: random.Random, depth: int) -> str:
    pairs = []
    for _ in range(dice.choice((0, 1, 1, 2, 3, 4))):
        pairs.append(f"{_text(dice)}{_space(dice)}:{_space(dice)}{_value(dice, depth)}{_space(dice)}")
    return "{" + _space(dice) + ",".join(pairs) + "}"


def _value(dice: random.Random, depth: int) -> str:
    kind = dice.randrange(8 if depth < 3 else 6)
    if kind == 6:
        return _object(dice, depth + 1)
    if kind == 7:
        return "[" + ",".join(_value(dice, depth + 1) for _ in range(dice.randrange(3))) + "]"
    if kind == 0:
        numbers = (
            "0",
            "-0",
            "1",
            "1.5",
            "1e3",
            "1E-9",
            "18446744073709551615",
            "18446744073709551616",
            "-1e400",
            "12.50",
        )
        return dice.choice((*numbers, str(dice.randrange(-(1 << 70), 1 << 70)), repr(dice.random())))
    return dice.choice(("true", "null", "false", "NaN")) if kind == 1 and dice.random() < 0.3 else _text(dice)


def _text(dice: random.Random) -> str:
    parts = (
        "a",
        "b",
        "c",
        "\\u0061",
        "é",
        "\\u00e9",
        '\\"',
        ":",
        '\\":',
        "/",
        "\\/",
        "\\ud83d\\ude00",
        "😀",
        " ",
    )
    return '"' + "".join(dice.choice(parts) for _ in range(dice.choice((0, 1, 1, 1, 2)))) + '"'


def _space(dice: random.Random) -> str:
    return "" if dice.random() < 0.9 else dice.choice((" ", "\n", "\t", "\r", "  "))


def _damaged(dice: random.Random, text: bytes) -> bytes:
    at = dice.randrange(len(text))
    junk = bytes([dice.choice(b'":,{}[]\\ \n0eu\x00\x7f\xff\xc3')])
    return text[:at] + dice.choice((b"", junk, junk + text[at : at + 1])) + text[at + 1 :]
