"""Reading the collection out of Metaplex metadata, however it is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from nosana_operator.chain.access import verified_collection
from nosana_sandbox.program.metadata import metadata_of

MINT, COLLECTION = Keypair().pubkey(), Keypair().pubkey()


def test_a_verified_collection() -> None:
    assert verified_collection(metadata_of(MINT, COLLECTION)) == str(COLLECTION)
    assert verified_collection(metadata_of(MINT, COLLECTION, name="x" * 32) + bytes(300)) == str(COLLECTION)


def test_one_that_nobody_verified() -> None:
    assert verified_collection(metadata_of(MINT, COLLECTION, verified=False)) is None


def test_creators_stand_in_front_of_it() -> None:
    plain = metadata_of(MINT, COLLECTION, name="")
    flag = plain.index(b"KEY") + 3 + 4 + 2
    creators = b"\x01" + (2).to_bytes(4, "little") + bytes(68)
    assert verified_collection(plain[:flag] + creators + plain[flag + 1 :]) == str(COLLECTION)


@given(st.binary(max_size=300))
def test_nonsense_names_none(data: bytes) -> None:
    verified_collection(data)


@given(st.integers(0, 200))
def test_what_ends_early_names_none(length: int) -> None:
    whole = metadata_of(MINT, COLLECTION)
    cut = whole[: min(length, len(whole) - 3)]
    assert verified_collection(cut) is None
