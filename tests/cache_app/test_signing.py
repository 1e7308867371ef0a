from __future__ import annotations

from hashlib import blake2b

import pytest

from cache_app.signing import MAC_BYTES, Signer

OLD, NEW = b"old secret of 22 bytes", b"new secret of 22 bytes"


def test_mac__key_head_and_rest__are_all_in_it() -> None:
    signer = Signer([NEW])
    mac = signer.mac("key", b"\xc2", b"rest")
    assert len(mac) == MAC_BYTES
    assert signer.verifies(mac, "key", b"\xc2", b"rest")
    for other in [("kez", b"\xc2", b"rest"), ("key", b"\xc3", b"rest"), ("key", b"\xc2", b"rest2")]:
        assert not signer.verifies(mac, *other)


@pytest.mark.parametrize(("key", "head", "rest"), [("ke", b"y\xc2", b"rest"), ("key\xc2", b"", b"rest")])
def test_mac__what_moves_between_key_and_entry__is_not_the_same(key: str, head: bytes, rest: bytes) -> None:
    signer = Signer([NEW])
    assert signer.mac("key", b"\xc2", b"rest") != signer.mac(key, head, rest)


def test_verifies__rotation__first_signs_and_each_is_accepted() -> None:
    before, during, after = Signer([OLD]), Signer([NEW, OLD]), Signer([NEW])
    old, new = before.mac("k", b"\xc2", b"x"), during.mac("k", b"\xc2", b"x")
    assert old != new
    assert during.verifies(old, "k", b"\xc2", b"x")
    assert during.verifies(new, "k", b"\xc2", b"x")
    assert after.verifies(new, "k", b"\xc2", b"x")
    assert not after.verifies(old, "k", b"\xc2", b"x")


@pytest.mark.parametrize("mac", [b"", b"x" * 15, b"x" * 16, b"x" * 17])
def test_verifies__anything_else__is_false(mac: bytes) -> None:
    assert not Signer([NEW]).verifies(mac, "k", b"\xc2", b"x")


@pytest.mark.parametrize("secrets", [[], [b""], [b"fifteen bytes.."], [NEW, b"short"]])
def test_signer__no_secret_or_a_short_one__is_refused(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError):
        Signer(secrets)


def test_signer__long_secret__counts_to_its_end() -> None:
    long = bytes(200)
    assert Signer([long + b"a"]).mac("k", b"", b"") != Signer([long + b"b"]).mac("k", b"", b"")


def test_mac__surrogate_in_the_key__is_like_any_other() -> None:
    signer = Signer([NEW])
    assert signer.verifies(signer.mac("\udcff", b"", b""), "\udcff", b"", b"")


def test_mac__known_answer__does_not_change() -> None:
    """Entries of one release are read by the next."""
    key = blake2b(NEW, digest_size=32, person=b"brain_cache_key").digest()
    said = b"3:key\xc2rest"
    assert Signer([NEW]).mac("key", b"\xc2", b"rest") == (
        blake2b(said, digest_size=16, key=key, person=b"brain_cache_mac").digest()
    )
