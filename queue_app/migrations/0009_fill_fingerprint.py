"""Fingerprints of the jobs that were dead before there were any. In batches, and again from the start after a break."""

import hashlib
import re

from django.db import migrations

_BATCH = 500
# As queue_app/fingerprints.py had it when this was written: a migration imports nothing that may change.
_VARIES = re.compile(
    r"""('[^']*'|"[^"]*")"""
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|\b0x[0-9a-f]+\b"
    r"|\b(?=[a-z]*[0-9])[0-9a-f]{8,}\b"
    r"|\S+@\S+"
    r"|\d+",
    re.IGNORECASE,
)
_FRAME = re.compile(r'^\s*File "([^"]+)", line \d+, in (.+)$', re.MULTILINE)


def fingerprint(error):
    told = error or {}
    message = " ".join(_VARIES.sub("#", str(told.get("message", ""))[:500]).split())
    frames = _FRAME.findall(str(told.get("traceback") or ""))
    frame = ""
    if frames:
        file, name = frames[-1]
        frame = f"{'/'.join(file.replace(chr(92), '/').split('/')[-2:])}:{name.strip()}"
    text = "\0".join((str(told.get("type", "")), message, frame))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def fill(apps, schema_editor):
    jobs = apps.get_model("queue_app", "Job").objects.using(schema_editor.connection.alias)
    missing = jobs.filter(state="DEAD_LETTER", fingerprint="").order_by("id")
    while found := list(missing.values_list("id", "last_error")[:_BATCH]):
        same = {}
        for job_id, error in found:
            same.setdefault(fingerprint(error), []).append(job_id)
        for key, ids in same.items():
            jobs.filter(id__in=ids, state="DEAD_LETTER").update(fingerprint=key)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("queue_app", "0008_fingerprint")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
