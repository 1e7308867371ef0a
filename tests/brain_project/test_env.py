from __future__ import annotations

import re
from pathlib import Path

import pytest

from brain_project.env import BadVariable, Env


def test_text__empty_value__counts_as_unset():
    env = Env({"A": "  ", "B": " x "})
    assert env.text("A", "fallback") == "fallback"
    assert env.text("B") == "x"


def test_flag__known_words__are_read_and_others_are_refused():
    env = Env({"A": "Yes", "B": "0", "C": "maybe"})
    assert env.flag("A", default=False) is True
    assert env.flag("B", default=True) is False
    assert env.flag("MISSING", default=True) is True
    with pytest.raises(BadVariable, match="C='maybe' is neither yes nor no: write C=1 or C=0"):
        env.flag("C", default=False)


def test_names__commas_and_spaces__give_a_clean_list():
    assert Env({"HOSTS": "a.example, b.example,,"}).names("HOSTS", []) == ["a.example", "b.example"]
    assert Env({}).names("HOSTS", ["localhost"]) == ["localhost"]


def test_count__whole_numbers_from_one__and_nothing_else():
    env = Env({"A": "12", "B": "0", "C": "1.5", "D": ""})
    assert env.count("A", 1) == 12
    assert env.count("D", 3) == 3
    for name in ("B", "C"):
        with pytest.raises(BadVariable, match="is not a whole number from 1"):
            env.count(name, 1)


def test_choice__unknown_value__names_the_choices():
    with pytest.raises(BadVariable, match="LEVEL='LOUD' is not known: use one of INFO, DEBUG"):
        Env({"LEVEL": "LOUD"}).choice("LEVEL", "INFO", ("INFO", "DEBUG"))


def test_named_urls__commas_within_urls__do_not_end_them():
    value = "postgres://u:a,b@h1,h2:5433/n?host=a,b, orders=postgres://x/y,docs=mongodb://m1,m2:27018/d"
    assert Env({"URLS": value}).named_urls("URLS") == [
        ("", "postgres://u:a,b@h1,h2:5433/n?host=a,b"),
        ("orders", "postgres://x/y"),
        ("docs", "mongodb://m1,m2:27018/d"),
    ]
    assert Env({}).named_urls("URLS") == []


def test_named_urls__no_url__refused_without_showing_it():
    with pytest.raises(BadVariable) as refused:
        Env({"URLS": "orders=secret@host"}).named_urls("URLS")
    assert "URLS" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_pairs__list_of_them__a_dict_and_half_a_pair_is_refused():
    assert Env({"APPS": "billing=orders, wiki = docs"}).pairs("APPS") == {"billing": "orders", "wiki": "docs"}
    with pytest.raises(BadVariable, match="'wiki' is no pair"):
        Env({"APPS": "billing=orders,wiki"}).pairs("APPS")


def test_variables__those_that_settings_read__stand_on_the_page_and_in_the_example_file():
    root = Path(__file__).resolve().parents[2]
    read = set(
        re.findall(r'\benv\.\w+\(\s*"([A-Z_]+)"', (root / "brain_project" / "settings.py").read_text())
    )
    example = (root / ".env.example").read_text()
    shown = set(re.findall(r"^#([A-Z_]+)=", example, re.M))
    told = set(re.findall(r"`([A-Z_]{5,})`", (root / "docs" / "settings.md").read_text()))
    assert len(read) >= 30
    assert (read - told, read - shown - {"WEB_CONCURRENCY"}, shown - read) == (set(), set(), set())
    assert not re.findall(r"^#[A-Z_]+=.*#.*$", example, re.M)  # systemd takes it for a part of the value
