from __future__ import annotations

import pytest

from queue_app.fingerprints import LENGTH, fingerprint, frame, normalised
from queue_app.pacing import LARGEST, allowance

TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "/srv/a/lib/mail/send.py", line 10, in send\n'
    "    raise OSError\n"
    '  File "/srv/a/lib/mail/smtp.py", line 12, in connect\n'
    "OSError: refused"
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("user 17 is gone", "user 4711 is gone"),
        ("no row 'a'", "no row 'b'"),
        ("job 0190f3c2-7b1a-7c3d-8e4f-001122334455", "job 0190f3c2-7b1a-7c3d-8e4f-aabbccddeeff"),
        ("object at 0x7f00", "object at 0x7fff"),
        ("a@example.com bounced", "b@example.org  bounced"),
    ],
)
def test_normalised__values_of_one_job__left_out(one, other):
    assert normalised(one) == normalised(other)


def test_normalised__other_words__differ():
    assert normalised("connection refused") != normalised("connection reset")
    assert normalised("deadbeef") == "deadbeef"  # a word without a digit is no id


def test_frame__last_one_without_line_and_install_path():
    assert frame(TRACEBACK) == "mail/smtp.py:connect"
    assert frame(TRACEBACK.replace("/srv/a/lib", "/opt/other").replace("line 12", "line 99")) == frame(
        TRACEBACK
    )
    assert frame(None) == frame("") == ""


def test_fingerprint__type_message_and_place_tell_errors_apart():
    error = {"type": "OSError", "message": "refused", "traceback": TRACEBACK}
    assert len(fingerprint(error)) == LENGTH
    others = [
        {**error, "type": "IOError"},
        {**error, "message": "reset"},
        {**error, "traceback": ""},
        {},
        None,
    ]
    assert len({fingerprint(error), *map(fingerprint, others)}) == 5  # none is as empty
    assert fingerprint({"message": "\ud800"})  # half of a surrogate pair does no harm


def test_allowance__looks_of_any_spacing__keep_the_rate():
    counted, let_go = 0.0, 0
    for moment in (0.3, 1.0, 1.1, 2.05, 3.0, 3.9, 5.0):
        step = allowance(7, moment - counted, look_s=1)
        counted += step.used_s
        let_go += step.jobs
    assert let_go == 35


def test_allowance__nobody_looked_for_a_minute__not_made_up_for():
    step = allowance(100, 60, look_s=1)
    assert step.jobs == 200
    assert step.used_s == pytest.approx(60)


def test_allowance__slow_rate_clock_set_back_or_no_rate():
    assert allowance(0.1, 9, look_s=1) == (0, 0.0)
    assert allowance(0.1, 10, look_s=1).jobs == 1
    assert allowance(5, -3600, look_s=1) == (0, 0.0)
    assert allowance(None, 0, look_s=1).jobs == LARGEST
