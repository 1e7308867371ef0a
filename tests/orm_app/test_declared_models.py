"""Models in SQL's words are ordinary Django models: fields, constraints, migrations, forms."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from django.apps.registry import Apps
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q

from orm_app import Field, Model, check_text
from orm_app.fields import Field as SameField
from tests import warm

ROOT = Path(__file__).resolve().parents[2]


def declare(fields: object, *, name: str = "Thing", **attributes: object) -> type[models.Model]:
    """A model of a registry of its own."""
    meta = type("Meta", (), {"app_label": "snippets_app", "apps": Apps()})
    return type(name, (Model,), {"_fields": fields, "Meta": meta, "__module__": __name__, **attributes})


def test_vocabulary__each_type__the_django_field():
    found = {
        "SERIAL": models.AutoField,
        "bigserial": models.BigAutoField,
        "INTEGER": models.IntegerField,
        "BIGINT": models.BigIntegerField,
        "SMALLINT": models.SmallIntegerField,
        "int unsigned": models.PositiveIntegerField,
        "VARCHAR(50)": models.CharField,
        "CHAR(3)": models.CharField,
        "character varying (20)": models.CharField,
        "TEXT": models.TextField,
        "BOOLEAN": models.BooleanField,
        "TINYINT(1)": models.BooleanField,
        "TIMESTAMP": models.DateTimeField,
        "TIMESTAMPTZ": models.DateTimeField,
        "DATE": models.DateField,
        "TIME": models.TimeField,
        "INTERVAL": models.DurationField,
        "DECIMAL(10,2)": models.DecimalField,
        "NUMERIC": models.DecimalField,
        "REAL": models.FloatField,
        "FLOAT": models.FloatField,
        "DOUBLE PRECISION": models.FloatField,
        "UUID": models.UUIDField,
        "JSON": models.JSONField,
        "JSONB": models.JSONField,
        "BLOB": models.BinaryField,
        "BYTEA": models.BinaryField,
    }
    for sql_type, kind in found.items():
        is_key = "serial" in sql_type.lower()
        field = Field(sql_type, **({"primary_key": True} if is_key else {})).django_field("x")
        assert type(field) is kind, sql_type
        assert field.null is not is_key
    assert Field("VARCHAR(50)").django_field("x").max_length == 50
    decimal = Field("DECIMAL(10, 2)").django_field("x")
    assert (decimal.max_digits, decimal.decimal_places) == (10, 2)


def test_options__each__reaches_the_field():
    model = declare(
        {
            "name": Field("VARCHAR(9)", unique=True, nullable=False, comment="shown"),
            "kind": Field("TEXT", choices=["a", ("b", "Bee")], index=True),
            "at": Field("TIMESTAMP", default="now()"),
            "key": Field("UUID", default="gen_random_uuid()"),
            "size": Field("INTEGER", default=3, check="size >= 0 AND size < 10"),
            "tags": Field("JSON", default=[]),
            "owner_id": Field("INTEGER", references="self", on_delete="set null", related_name="owned"),
        },
        _table_name="things",
    )
    meta = model._meta
    name, kind, owner = meta.get_field("name"), meta.get_field("kind"), meta.get_field("owner")
    assert (meta.db_table, name.unique, name.null, name.db_comment) == ("things", True, False, "shown")
    assert (kind.choices, kind.db_index) == ([("a", "a"), ("b", "Bee")], True)
    assert (owner.column, owner.attname, owner.remote_field.on_delete) == (
        "owner_id",
        "owner_id",
        models.SET_NULL,
    )
    row, other = model(), model()
    assert (row.size, row.tags, row.at is not None) == (3, [], True)
    assert row.tags is not other.tags
    assert row.key != other.key
    assert isinstance(row.key, uuid.UUID)
    (check,) = meta.constraints
    assert (check.name, check.condition) == ("things_size_check", Q(size__gte=0, size__lt=10))
    assert meta.get_field("size").db_default is not models.NOT_PROVIDED


def test_meta_and_methods__of_the_class__are_kept():
    class Meta:
        app_label = "snippets_app"
        apps = Apps()
        ordering = ("-n",)
        constraints = (models.UniqueConstraint(fields=["n"], name="n_once"),)

    model = declare({"n": Field("INTEGER", check=Q(n__gt=0))}, Meta=Meta, double=lambda self: self.n * 2)
    assert model._meta.ordering == ("-n",)
    assert [constraint.name for constraint in model._meta.constraints] == ["n_once", "thing_n_check"]
    assert model(n=2).double() == 4
    assert model._meta.pk.name == "id"


def test_abstract_base__its_checks_and_meta_reach_each_table():
    registry = Apps()

    class Base(Model):
        _fields = {"n": Field("INTEGER", check="n >= 0")}

        class Meta:
            abstract = True
            app_label = "snippets_app"
            apps = registry
            ordering = ("-n",)

    class Own(Base):
        _fields = {"m": Field("INTEGER", check="m > 0")}

        class Meta(Base.Meta):
            verbose_name = "own"

    class Bare(Base):
        _fields = {"m": Field("INTEGER")}

    class Plain(Base):
        pass

    class Named(Base):
        _table_name = "names"

    class Proxy(Own):
        class Meta:
            proxy = True
            app_label = "snippets_app"
            apps = registry

    found = {model: [one.name for one in model._meta.constraints] for model in (Own, Bare, Plain, Named)}
    assert list(found.values()) == [
        ["own_n_check", "own_m_check"],
        ["bare_n_check"],
        ["plain_n_check"],
        ["names_n_check"],
    ]
    assert {model._meta.ordering for model in found} == {("-n",)}
    tables = [model._meta.db_table for model in found]
    assert tables == ["own", "bare", "snippets_app_plain", "names"]
    assert (Proxy._meta.proxy, Proxy._meta.db_table, Proxy._meta.constraints) == (True, "own", [])


@pytest.mark.parametrize(
    ("sql_type", "text", "value"),
    [
        ("BOOLEAN", "FALSE", False),
        ("BOOLEAN", "true", True),
        ("INTEGER", "0", 0),
        ("DECIMAL(10, 2)", "0.50", Decimal("0.50")),
        ("DATE", "2020-01-01", date(2020, 1, 1)),
        ("TIMESTAMP", "2020-01-01 10:00", datetime(2020, 1, 1, 10, tzinfo=UTC)),
        ("JSON", "{}", {}),
        ("INTEGER", "NULL", None),
        ("VARCHAR(9)", "NULL", "NULL"),
    ],
)
def test_default__in_the_words_of_sql__is_the_value(sql_type, text, value):
    field = Field(sql_type, default=text).django_field("x")
    assert field.get_default() == value
    assert type(field.get_default()) is type(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Field("INTEGER", default="many").django_field("x"),
            "unknown default 'many': it is no Integer",
        ),
        (lambda: Field("VARCHA(50)"), "unknown type .* did you mean 'VARCHAR'"),
        (lambda: Field("VARCHAR"), r"needs a length: VARCHAR\(100\)"),
        (lambda: Field("INTEGER(5)"), "has no size"),
        (lambda: Field("DECIMAL(2,5)"), "more decimal places"),
        (lambda: Field("TEXT", uniqe=True), "unknown option 'uniqe': did you mean 'unique'"),
        (lambda: Field("TEXT", on_delete="CASCADE"), "needs references"),
        (lambda: Field("INTEGER", references="self", on_delete="CASCADES"), "did you mean 'CASCADE'"),
        (lambda: Field("INTEGER", references="self", nullable=False, on_delete="SET NULL"), "nullable"),
        (lambda: Field("SERIAL"), "primary_key=True"),
        (lambda: Field("INTEGER", primary_key=True, nullable=True), "never NULL"),
        (
            lambda: Field("TIMESTAMP", default="CURENT_TIMESTAMP").django_field("x"),
            "did you mean 'CURRENT_TIMESTAMP'",
        ),
        (lambda: Field("JSON", default={"a": 1}).django_field("x"), "give a function"),
        (lambda: declare([("a", Field("TEXT"))]), "dict of name"),
        (lambda: declare({"a": "TEXT"}), "is a Field"),
        (lambda: declare({"a": Field("TEXT")}, a=1), "twice"),
        (lambda: declare({"a": Field("INTEGER", check="length(a) > 5")}), "cannot read the check"),
    ],
)
def test_mistake__in_a_declaration__said_with_the_near_ones(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a > 5", Q(a__gt=5)),
        ("a = 'it''s'", Q(a__exact="it's")),
        ("a <> b", ~Q(a__exact=F("b"))),
        ("a BETWEEN 1 AND 5 and b is not null", Q(a__range=(1, 5), b__isnull=False)),
        ("a IN ('x', 'y') OR b = TRUE", Q(("a__in", ["x", "y"]), ("b__exact", True), _connector="OR")),
        ("a NOT IN (1, 2)", ~Q(a__in=[1, 2])),
    ],
)
def test_check_text__comparisons__a_condition(text, expected):
    assert check_text.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a", "a > 5 AND", "a > 5 OR b > 5 AND c > 5", "a > 5; DROP TABLE x", "a > (b)"]
)
def test_check_text__more_than_that__refused(text):
    with pytest.raises(ValueError, match="cannot read the check"):
        check_text.parse(text)


def test_model__validated_and_shown__like_any(settings):
    model = declare({"kind": Field("CHAR(4)", nullable=False, choices=["shop", "gift"])})
    with pytest.raises(ValidationError, match="not a valid choice"):
        model(kind="x").full_clean()
    assert SameField is Field
    assert repr(Field("TEXT", unique=True)) == "Field('TEXT', unique=True)"


def test_makemigrations_and_migrate__see_them_as_ordinary_models(tmp_path):
    def manage(*arguments: str) -> str:
        environment = {
            "PATH": "/usr/bin:/bin",
            "DJANGO_SETTINGS_MODULE": "tests.orm_app.snippets_app.settings",
            "BRAIN_DATA_DIR": str(tmp_path),
        }
        done = warm.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "No changes" in manage("makemigrations", "--check", "--dry-run", "snippets_app")
    manage("migrate", "snippets_app", "--verbosity", "0")
    shown = manage("sqlmigrate", "snippets_app", "0001")
    assert 'CREATE TABLE "users"' in shown
    assert "CHECK (" in shown
    assert "[X] 0001_models" in manage("showmigrations", "snippets_app")
