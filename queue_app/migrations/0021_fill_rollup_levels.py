"""Rows without a tenant become those of all tenants, and the levels' marks say which spans are minutes, hours and days.

Workers of older code have to be stopped: they would count on as before. In batches, and on from where it was after a break.
What the leader sums up later (5 and 15 minutes, 6 hours, hours and days that are minutes and hours by now) is not made here.
"""

from datetime import UTC, datetime, timedelta

from django.db import migrations, transaction

_BATCH = 500
_PROGRESS = "rollup levels"  # a Lease's name
_WINDOWS_S = {60: 600, 3600: 3600, 86_400: 86_400}  # of one level, in one transaction
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEPS = ("started", "completed", "failed", "dead", "cancelled")
_SUMMED = (*_STEPS, "wait_s", "run_s")
_HISTOGRAMS = ("wait", "run")


def fill(apps, schema_editor):
    rollups, levels, leases = _tables(apps, schema_editor)
    if levels.exists():  # it came to its end, and was not noted any more
        return
    if leases.filter(name=_PROGRESS).first() is None:
        _coarsen(rollups, 60, 3600, max(_end(rollups, 3600), _end(rollups, 86_400)))
        _coarsen(rollups, 3600, 86_400, _end(rollups, 86_400))
    _walk(rollups, leases, _add_tenants)
    minutes_from, hours_from = _boundaries(rollups)
    with transaction.atomic(using=rollups.db):
        if minutes_from is not None:
            for step_s, upto, kept_from in (
                (60, _EPOCH, minutes_from),
                (300, minutes_from, minutes_from),
                (900, minutes_from, minutes_from),
                (3600, minutes_from, hours_from),
                (21_600, hours_from, hours_from),
                (86_400, hours_from, _EPOCH),
            ):
                levels.create(step_s=step_s, upto=upto, kept_from=kept_from)
        leases.filter(name=_PROGRESS).delete()


def empty(apps, schema_editor):
    """Each step in one level again, and rows without a tenant those of jobs without one."""
    rollups, levels, leases = _tables(apps, schema_editor)
    kept_from = dict(levels.values_list("step_s", "kept_from"))
    if not kept_from:
        return
    minutes_from, hours_from = kept_from.get(60, _EPOCH), kept_from.get(3600, _EPOCH)
    for gone in (
        {"step_s__in": (300, 900, 21_600)},
        {"step_s": 60, "at__lt": minutes_from},
        {"step_s": 3600, "at__gte": minutes_from},
        {"step_s": 3600, "at__lt": hours_from},
        {"step_s": 86_400, "at__gte": hours_from},
    ):
        while ids := list(rollups.filter(**gone).values_list("id", flat=True)[:_BATCH]):
            rollups.filter(id__in=ids).delete()
    _walk(rollups, leases, _take_tenants_off)
    with transaction.atomic(using=rollups.db):
        levels.all().delete()
        leases.filter(name=_PROGRESS).delete()


def _tables(apps, schema_editor):
    alias = schema_editor.connection.alias
    names = ("Rollup", "RollupLevel", "Lease")
    return [apps.get_model("queue_app", name).objects.using(alias) for name in names]


def _end(rollups, step_s):
    """Where the newest span of this level ends."""
    newest = rollups.filter(step_s=step_s).order_by("-at").values_list("at", flat=True).first()
    return _EPOCH if newest is None else newest + timedelta(seconds=step_s)


def _boundaries(rollups):
    """From where on there are minutes, and hours; None when there is nothing."""
    first = {
        step_s: rollups.filter(step_s=step_s).order_by("at").values_list("at", flat=True).first()
        for step_s in (60, 3600, 86_400)
    }
    if not any(first.values()):
        return None, None
    minutes_from, hours_from = max(_end(rollups, 3600), _end(rollups, 86_400)), _end(rollups, 86_400)
    if minutes_from == _EPOCH:
        minutes_from = _floor(first[60], 3600)
    if hours_from == _EPOCH:
        hours_from = _floor(min(filter(None, (first[3600], minutes_from))), 86_400)
    return minutes_from, hours_from


def _coarsen(rollups, fine_s, coarse_s, before):
    """What late steps and bounded looks have left behind: a span is told in one level."""
    while True:
        with transaction.atomic(using=rollups.db):
            old = list(rollups.filter(step_s=fine_s, at__lt=before).order_by("at", "id")[:_BATCH])
            if not old:
                return
            for row in old:
                key = {"queue": row.queue, "name": row.name, "tenant": row.tenant}
                into, _ = rollups.get_or_create(step_s=coarse_s, at=_floor(row.at, coarse_s), **key)
                _add(into, row, 1)
                into.save()
            rollups.filter(id__in=[row.id for row in old]).delete()


def _walk(rollups, leases, change):
    """Window by window through each level; the lease says which is the next one."""
    found, _ = leases.get_or_create(name=_PROGRESS, defaults={"until": _EPOCH, "position": "60 0"})
    at_step_s, at_s = map(int, found.position.split())
    for step_s, window_s in _WINDOWS_S.items():
        if step_s < at_step_s:
            continue
        start = _EPOCH + timedelta(seconds=at_s if step_s == at_step_s else 0)
        of_level = rollups.filter(step_s=step_s)
        ahead = of_level.order_by("at").values_list("at", flat=True)
        while (next_at := ahead.filter(at__gte=start).first()) is not None:
            since = _floor(next_at, window_s)
            start = since + timedelta(seconds=window_s)
            with transaction.atomic(using=rollups.db):
                change(rollups, list(of_level.filter(at__gte=since, at__lt=start).order_by("id")))
                position = f"{step_s} {(start - _EPOCH).total_seconds():.0f}"
                leases.filter(name=_PROGRESS).update(position=position)


def _add_tenants(rollups, rows):
    _replace(rollups, rows, 1)


def _take_tenants_off(rollups, rows):
    _replace(rollups, rows, -1)


def _replace(rollups, rows, sign):
    """Those without a tenant, with the tenants' added or taken off. Written anew: an update of so many is ten times slower."""
    sums = {(row.at, row.queue, row.name): row for row in rows if not row.tenant}
    touched = {}
    for row in rows:
        if row.tenant:
            key = (row.at, row.queue, row.name)
            if key not in sums:
                sums[key] = rollups.model(step_s=row.step_s, at=row.at, queue=row.queue, name=row.name)
            touched[key] = sums[key]
            _add(sums[key], row, sign)
    rollups.filter(id__in=[row.id for row in touched.values() if row.id is not None]).delete()
    left = [row for row in touched.values() if any(getattr(row, name) for name in _STEPS)]
    for row in left:
        row.id = None
    rollups.bulk_create(left, batch_size=_BATCH)


def _add(into, row, sign):
    for name in _SUMMED:
        setattr(into, name, max(0, getattr(into, name) + sign * getattr(row, name)))
    for name in _HISTOGRAMS:
        sums = dict(getattr(into, name))
        for bucket, count in getattr(row, name).items():
            sums[bucket] = sums.get(bucket, 0) + sign * count
        setattr(into, name, {bucket: count for bucket, count in sums.items() if count})


def _floor(at, step_s):
    return _EPOCH + timedelta(seconds=(at - _EPOCH).total_seconds() // step_s * step_s)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("queue_app", "0020_rollup_levels")]

    operations = [migrations.RunPython(fill, empty)]
