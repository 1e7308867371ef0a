from __future__ import annotations

import pytest

from foundation import figures


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0"), (0.25, "0.2"), (3, "3"), (999, "999"), (999.6, "1k"), (1234, "1.2k"), (99_950, "100k"), (999_600, "1M"),
        (2_500_000_000, "2.5G"),
    ],
)  # fmt: skip
def test_count__any_size__at_most_three_digits(number, told):
    assert figures.count(number) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "–"), (0, "0 s"), (0.000_01, "0.1 ms"), (0.0004, "0.4 ms"), (0.000_97, "1 ms"), (0.34, "340 ms"), (0.9996, "1 s"), (2.14, "2.1 s"), (119, "119 s"),
        (120, "2 min"), (7199, "2 h"), (172_800, "2 d"),
    ],
)  # fmt: skip
def test_duration__any_length__in_the_unit_that_one_would_say(seconds, told):
    assert figures.duration(seconds) == told


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [(None, "–"), (340, "340 B"), (2**20, "1.0 MiB"), (3 * 2**30, "3.0 GiB"), (1536 * 2**30, "1.5 TiB")],
)
def test_size__any_number_of_bytes__in_the_largest_unit(size_bytes, told):
    assert figures.size(size_bytes) == told


@pytest.mark.parametrize(
    ("part", "told"),
    [(None, "–"), (0, "0 %"), (0.0004, "<0.1 %"), (0.012, "1.2 %"), (0.0996, "10 %"), (1, "100 %")],
)
def test_share__of_one__in_per_cent(part, told):
    assert figures.share(part) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "now"),
        (0.9, "now"),
        (3.7, "3 s ago"),
        (150, "2 min ago"),
        (9000, "2 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_ago__seconds__in_whole_units(seconds, told):
    assert figures.ago(seconds) == told
