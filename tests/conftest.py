from __future__ import annotations

import contextlib
import functools
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import setting_changed
from django.db.models.signals import post_migrate
from django.test import override_settings

from . import depth, environment, servers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where processes share the files: those with the most slow tests early, so that none is left over for one of them,
    and among others, because they mostly wait."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    quick = (path for path in dict.fromkeys(item.path for item in items) if path not in slow)
    place = {path: number for number, path in enumerate(quick)}
    place |= {path: 2 * number for number, (path, _) in enumerate(slow.most_common())}
    items.sort(key=lambda item: place[item.path])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """At once, by name: a run that is ended early has told what failed."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)


def pytest_collection_finish() -> None:
    if hypothesis := sys.modules.get("hypothesis"):
        count = depth.examples(depth.USUAL_EXAMPLES)
        # Without a deadline, as Hypothesis has it by itself where CI is set: a busy machine is no defect.
        hypothesis.settings.register_profile("brain", max_examples=count, deadline=None)
        hypothesis.settings.load_profile("brain")


@pytest.fixture(scope="session", autouse=True)
def valkey() -> Iterator[str]:
    """The Valkey behind settings.REDIS_URL for this run: embedded, real, and gone afterwards."""
    sock = Path(environment.DATA_DIR) / "valkey" / "valkey.sock"
    sock.parent.mkdir(parents=True, exist_ok=True)
    with servers.valkey(unix_socket=sock, appendfsync="no") as url:
        yield url


@pytest.fixture(scope="module", autouse=True)
def no_events_of_others(valkey: str) -> None:
    """What a module before this one told of its tasks would be late by now: the queue's health would say so here."""
    from queue_app.broker import stream

    with stream.client() as (client, key):
        client.delete(key)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A transactional test ends with a flush, which empties tables that a migration filled: fill them again."""
    from .foundation import databases

    post_migrate.connect(_restore_role_groups, dispatch_uid="tests.role_groups")
    with django_db_blocker.unblock():
        usual = databases.quicken_flushes()
    yield
    usual()
    post_migrate.disconnect(dispatch_uid="tests.role_groups")


def _restore_role_groups(*, sender: Any, using: str, **_: object) -> None:
    from django.contrib.auth.models import Group

    if sender.name == "foundation":
        for name in ("viewer", "operator", "admin"):
            Group.objects.using(using).get_or_create(name=name)


def pytest_collection() -> None:
    """The pages of the admin, which the URLconf imports: a test may ask for them while it is collected."""
    from django.contrib import admin

    admin.autodiscover()


@pytest.fixture(scope="session", autouse=True)
def one_admin_site() -> Iterator[None]:
    """Unfold makes a new, empty admin site each time the apps get ready, as they do when a test changes INSTALLED_APPS."""
    from django.contrib import admin
    from django.contrib.admin import sites

    site = admin.site

    def kept(*, setting: str, **_: object) -> None:
        if setting == "INSTALLED_APPS":
            admin.site = sites.site = site

    setting_changed.connect(kept, weak=False, dispatch_uid="one_admin_site")
    yield
    setting_changed.disconnect(dispatch_uid="one_admin_site")


@pytest.fixture(scope="session", autouse=True)
def quick_passwords(django_test_environment: None) -> Iterator[None]:
    """The real hasher takes its time on purpose; tests make users by the dozen."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_housekeeper() -> None:
    """The thread that sends the cache's counts would ask Redis in the middle of any test."""
    from cache_app import stats_store

    stats_store.housekeeper.is_wanted = False

    from orm_app.slow import flusher  # the same of the thread that stores slow statements

    flusher.flusher.is_wanted = False


@pytest.fixture(scope="session", autouse=True)
def counted_each_time() -> None:
    """After one count that took a tenth of a second, as on a machine that stands still for a moment, this process would show
    for minutes what was counted for another test."""
    from queue_app import census

    census.SLOW_S = float("inf")


@pytest.fixture
def prefix() -> str:
    """A key prefix of this test's own."""
    return f"test:{uuid.uuid4().hex[:12]}:"


def _service(variable: str, start: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    url = os.environ.get(variable)
    if url:
        yield url
        return
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(start())
        except servers.Missing as missing:
            if os.environ.get("CI"):
                pytest.fail(
                    f"{missing} is not installed, and CI is set: a missing service is a failure there"
                )
            pytest.skip(f"{missing} is not installed (or set {variable})")
        yield started


# Nobody here pulls the plug: without waiting for a disk that other tests keep busy, a commit takes no seconds.
_START_POSTGRESQL = functools.partial(servers.postgresql, "-c", "fsync=off")
_START_MARIADB = functools.partial(servers.mariadb, "--innodb-flush-log-at-trx-commit=2")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    yield from _service("BRAIN_TEST_POSTGRESQL_URL", _START_POSTGRESQL)


@pytest.fixture(scope="module")  # its idle processes take up time
def rabbitmq_url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "ERL_AFLAGS", "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
        )  # nor do they wait in a loop
        yield from _service("BRAIN_TEST_RABBITMQ_URL", servers.rabbitmq)


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    yield from _service("BRAIN_TEST_MARIADB_URL", _START_MARIADB)


@pytest.fixture(scope="session")
def mongodb_url() -> Iterator[str]:
    yield from _service("BRAIN_TEST_MONGODB_URL", servers.mongodb)
