"""System checks of replicas and of apps on databases of their own: what the router would take as it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.module_loading import import_string

from .conf import DatabaseConf, conf
from .router import Router


@register("orm_app")
def replicas_are_sound(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    databases, chosen = settings.DATABASES, conf()
    found = [*wrong_replicas(databases), *wrong_homes(databases, chosen.APPS)]
    found += unknown_apps(chosen.APPS, [config.label for config in apps.get_app_configs()])
    found += unrouted(databases, chosen.APPS, settings.DATABASE_ROUTERS)
    if any(entry.get("REPLICA_OF") for entry in databases.values()):
        found += always_late(chosen.REPLICA_MAX_LAG_S, chosen.REPLICA_PROBE_S)
        users = settings.AUTH_USER_MODEL.partition(".")[0]
        found += deciding_by_old_rows(chosen.READ_FROM_PRIMARY, {*DatabaseConf().READ_FROM_PRIMARY, users})
    return found


def wrong_replicas(databases: Mapping[str, Mapping[str, Any]]) -> Iterable[CheckMessage]:
    for alias, entry in databases.items():
        of = entry.get("REPLICA_OF")
        if not of:
            continue
        where = f"DATABASES[{alias!r}]['REPLICA_OF'] = {of!r}"
        if of not in databases:
            yield _error("E010", f"{where}: there is no such database.", _known(databases))
        elif databases[of].get("REPLICA_OF"):
            first = databases[of]["REPLICA_OF"]
            yield _error("E011", f"{where}: that is a replica itself.", f"Name the primary: {first!r}.")
        elif entry.get("ENGINE") != databases[of].get("ENGINE"):
            text = (
                f"{where}: its engine is {entry.get('ENGINE')}, the primary's {databases[of].get('ENGINE')}."
            )
            yield _error(
                "E012", text, "A replica is a copy of its primary's server: build both entries by from_url."
            )


def wrong_homes(
    databases: Mapping[str, Mapping[str, Any]], homes: Mapping[str, str]
) -> Iterable[CheckMessage]:
    for app, alias in homes.items():
        where = f"BRAIN['DATABASE']['APPS'][{app!r}] = {alias!r}"
        if alias not in databases:
            yield _error("E013", f"{where}: there is no such database.", _known(databases))
        elif of := databases[alias].get("REPLICA_OF"):
            yield _error(
                "E014", f"{where}: that is a replica, which takes no writes.", f"Name its primary: {of!r}."
            )


def unknown_apps(homes: Mapping[str, str], labels: Sequence[str]) -> Iterable[CheckMessage]:
    for app in homes:
        if app not in labels:
            text = f"BRAIN['DATABASE']['APPS'] maps {app!r}, and no installed app has this label."
            yield _warning("W010", text, f"The labels are {', '.join(sorted(labels))}.")


def unrouted(
    databases: Mapping[str, Mapping[str, Any]], homes: Mapping[str, str], routers: Sequence[Any]
) -> Iterable[CheckMessage]:
    """Only where there is something to route."""
    aliases = [alias for alias, entry in databases.items() if entry.get("REPLICA_OF")]
    kinds = [import_string(one) if isinstance(one, str) else type(one) for one in routers]
    if (aliases or homes) and not any(issubclass(kind, Router) for kind in kinds):
        what = f"the replicas {', '.join(aliases)} get no reads" if aliases else "APPS has no effect"
        text = f"DATABASE_ROUTERS has no orm_app.router.Router: {what}."
        yield _error("E015", text, "Set DATABASE_ROUTERS = ['orm_app.router.Router'].")


def always_late(max_lag_s: float, probe_s: float) -> Iterable[CheckMessage]:
    """What is known of a replica is as old as the last look at it."""
    if max_lag_s < 2 * probe_s:
        text = f"REPLICA_MAX_LAG_S ({max_lag_s:g}) is less than twice REPLICA_PROBE_S ({probe_s:g}): between two looks a replica seems late."
        yield _warning("W011", text, "Look more often, or allow more.")


def deciding_by_old_rows(chosen: Iterable[str], deciding: set[str]) -> Iterable[CheckMessage]:
    """deciding: the apps whose rows say who may do what, and which job runs where."""
    left_out = sorted(deciding - set(chosen))
    if left_out:
        text = f"READ_FROM_PRIMARY leaves out {', '.join(left_out)}: what they decide by may be REPLICA_MAX_LAG_S old."
        yield _warning("W012", text, "The setting replaces its default: add them to yours.")


def _known(databases: Iterable[str]) -> str:
    return f"There are {', '.join(databases)}."


def _error(number: str, text: str, hint: str) -> CheckMessage:
    return Error(text, hint=f"{hint} See docs/checks.md#orm_app-{number.lower()}.", id=f"orm_app.{number}")


def _warning(number: str, text: str, hint: str) -> CheckMessage:
    return Warning(text, hint=f"{hint} See docs/checks.md#orm_app-{number.lower()}.", id=f"orm_app.{number}")
