from __future__ import annotations

import random

import pytest

from gateway import keys


def test_generate__key__recognisable_by_its_prefix_and_stored_as_a_hash() -> None:
    new = keys.generate(random.Random(1).choice)
    brand, prefix, secret = new.text.split("_")
    assert (brand, prefix, len(prefix), len(secret)) == ("brn", new.prefix, 8, 43)
    assert new.digest == keys.digest(new.text.encode())
    assert keys.generate(random.Random(2).choice).text != new.text


@pytest.mark.parametrize("text", ["", "with space", "ümlaut", "tab\t", "x" * 513])
def test_imported__not_a_header_value__value_error(text: str) -> None:
    with pytest.raises(ValueError):
        keys.imported(text)
