from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pytest

from foundation.conf import Bound, read, setting


@dataclass(frozen=True, slots=True)
class RoomConf:
    TIMEOUT_S: float = setting(2.0, low=0.1, high=60)
    WORKERS: int = setting(4, low=1)
    MODE: str = setting("local", choices=("local", "deny"))
    NAMES: tuple[str, ...] = setting(())
    LIMIT: int | None = setting(None)
    IS_OPEN: bool = setting(False)
    PLACES: Mapping[str, str] = setting(MappingProxyType({}))


def test_read__nothing_given__defaults_and_no_problem():
    assert read("ROOM", RoomConf, {}) == (RoomConf(), [])


def test_read__good_values__taken_and_whole_number_becomes_float():
    conf, problems = read("ROOM", RoomConf, {"TIMEOUT_S": 5, "NAMES": ["a"], "LIMIT": 3, "IS_OPEN": True})
    assert problems == []
    assert (conf.TIMEOUT_S, type(conf.TIMEOUT_S), conf.LIMIT, conf.IS_OPEN) == (5.0, float, 3, True)


def test_read__list_for_a_tuple__becomes_the_tuple_that_a_frozen_conf_needs():
    conf, _ = read("ROOM", RoomConf, {"NAMES": ["a", "b"]})
    assert conf.NAMES == ("a", "b")


def test_read__dict_for_a_mapping__cannot_be_changed_afterwards():
    given = {"desk": "window"}
    conf, _ = read("ROOM", RoomConf, {"PLACES": given})
    given["desk"] = "door"
    assert conf.PLACES == {"desk": "window"}
    with pytest.raises(TypeError):
        conf.PLACES["desk"] = "door"


def test_read__misspelt_key__named_with_the_likely_one():
    _, [problem] = read("ROOM", RoomConf, {"TIMEOUT": 3})
    assert problem.kind == "key"
    assert problem.message == "Unknown key 'TIMEOUT' in BRAIN['ROOM']."
    assert problem.hint == "Did you mean 'TIMEOUT_S'?"


def test_read__unknown_key_like_no_other__known_keys_are_listed():
    _, [problem] = read("ROOM", RoomConf, {"zzz": 3})
    assert "TIMEOUT_S" in problem.hint


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("WORKERS", "4", "type"),
        ("WORKERS", True, "type"),
        ("WORKERS", 2.5, "type"),
        ("IS_OPEN", 1, "type"),
        ("NAMES", "a", "type"),
        ("NAMES", [1], "type"),
        ("LIMIT", "x", "type"),
        ("PLACES", {"desk": 1}, "type"),
        ("PLACES", ["desk"], "type"),
        ("WORKERS", 0, "range"),
        ("TIMEOUT_S", 61.0, "range"),
        ("TIMEOUT_S", float("nan"), "range"),
        ("MODE", "ignore", "range"),
    ],
)
def test_read__wrong_value__default_stands_and_problem_says_which(key, value, kind):
    conf, [problem] = read("ROOM", RoomConf, {key: value})
    assert getattr(conf, key) == getattr(RoomConf(), key)
    assert problem.kind == kind
    assert repr(key) in problem.message


def test_read__one_sided_range__hint_names_the_side_that_there_is():
    _, [problem] = read("ROOM", RoomConf, {"WORKERS": 0})
    assert problem.hint == "Use a value of at least 1."


def test_read__section_is_no_dict__one_problem_and_defaults():
    conf, [problem] = read("ROOM", RoomConf, ["TIMEOUT_S"])
    assert conf == RoomConf()
    assert problem.message == "BRAIN['ROOM'] is a list, not a dict."


def test_setting__mutable_default__refused():
    with pytest.raises(TypeError, match="immutable"):
        setting([])


def test_bound__before_and_after_binding__gives_defaults_then_the_bound_value():
    bound = Bound("ROOM", RoomConf)
    assert bound() == RoomConf()
    bound.bind(RoomConf(WORKERS=9))
    assert bound().WORKERS == 9
