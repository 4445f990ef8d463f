"""Ids, digests and copies of what arrives."""

from __future__ import annotations

import hashlib
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidRequestError, LimitExceededError, NotFoundError, ReadError
from pipeline.read import Limits
from pipeline.records import check_document_id
from pipeline.sources import Source, arrive, claim, identify

LIMITS = Limits(input_bytes=1000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.txt", "a/b.txt"),
        ("cafe\u0301.txt", "caf\u00e9.txt"),
        ("日本 語.pdf", "日本 語.pdf"),
        ("", "text-" + "0" * 16),
        ("..a/b..c/...", "..a/b..c/..."),
    ],
)
def test_a_name_is_the_id_where_it_can_be(name, expected):
    assert identify(Source(name, text="x"), "0" * 64) == expected


@given(st.text(max_size=600))
def test_every_name_has_a_valid_id_that_it_keeps(name):
    first = identify(Source(name, text="x"), "0" * 64)
    assert check_document_id(first) == first
    assert identify(Source("another", text="x", document_id=first), "") == first
    assert identify(Source(name, text="y"), "0" * 64) == first


@given(st.lists(st.text(min_size=1, max_size=300).filter(lambda s: s.strip() == s), min_size=2, max_size=2))
def test_different_bad_names_have_different_ids(names):
    first, second = (identify(Source(name, text="x"), "0" * 64) for name in names)
    if unicodedata.normalize("NFC", names[0]) != unicodedata.normalize("NFC", names[1]):
        assert first != second


def test_names_that_are_no_text_have_ids_of_their_own_and_can_be_stored():
    names = [os.fsdecode(name) for name in (b"x\xff.txt", b"x\xfe.txt", b"x?.txt")]
    claims = [claim(Source(name, text=name.encode("utf-8", "replace").decode()), LIMITS) for name in names]
    assert len({each.document_id for each in claims}) == 3
    assert claims[2].document_id == "x?.txt"
    assert {each.source.name for each in claims} == {"x?.txt"}


def test_a_given_id_is_taken_or_refused():
    assert identify(Source("name", text="x", document_id="id 7"), "0") == "id 7"
    with pytest.raises(InvalidRequestError, match="Document id"):
        identify(Source("name", text="x", document_id="a\nb"), "0")


@pytest.mark.parametrize(
    ("dots", "safe"),
    [
        (".", "_"),
        ("..", "__"),
        ("../../victim", "__/__/victim"),
        ("foo/../bar", "foo/__/bar"),
        ("foo/.", "foo/_"),
        ("foo\\..\\bar", "foo\\__\\bar"),
        (" ../x ", "__/x"),
    ],
)
def test_no_id_has_a_part_that_addresses_lose(dots, safe):
    """Clients shorten ``documents/../../victim`` to ``victim``, so that deleting one would delete another."""
    with pytest.raises(InvalidRequestError, match="shorten") as caught:
        identify(Source("name", text="x", document_id=dots.strip()), "0")
    assert caught.value.remedy
    assert identify(Source(dots, text="x"), "0" * 64).startswith(f"{safe}-")


def test_digest_changes_with_what_is_stored_and_with_nothing_else():
    base = Source("a.txt", text="hello", metadata={"b": 1, "a": [2]})
    same = [
        Source("a.txt", text="hello", metadata={"a": (2,), "b": 1}),
        Source("other name", text="hello", metadata={"b": 1, "a": [2]}, document_id="a.txt"),
        Source("a.txt", data=b"hello", metadata={"b": 1, "a": [2]}, password="p"),
    ]
    other = [
        Source("a.txt", text="hello!", metadata={"b": 1, "a": [2]}),
        Source("a.txt", text="hello", metadata={"b": 1, "a": [3]}),
        Source("a.txt", text="hello", metadata={"b": 1, "a": [2]}, title="T"),
        Source("a.txt", text="hello", metadata={"b": 1, "a": [2]}, media_type="text/markdown"),
    ]
    digest = claim(base, LIMITS).digest
    assert {claim(source, LIMITS).digest for source in same} == {digest}
    assert digest not in {claim(source, LIMITS).digest for source in other}


def test_limits_and_mistakes_are_told_before_anything_is_read(tmp_path):
    with pytest.raises(InvalidRequestError, match="either a file or a text"):
        claim(Source("a"), LIMITS)
    with pytest.raises(InvalidRequestError, match="either a file or a text"):
        claim(Source("a", data=b"x", text="x"), LIMITS)
    with pytest.raises(LimitExceededError, match="1,001 bytes; the limit is 1,000"):
        claim(Source("a", data=b"x" * 1001), LIMITS)
    big = tmp_path / "big"
    big.write_bytes(b"x" * 1001)
    with pytest.raises(LimitExceededError, match="1,001"):
        claim(Source("a", data=big), LIMITS)
    with pytest.raises(NotFoundError, match="missing"):
        claim(Source("a", data=tmp_path / "missing"), LIMITS)
    with pytest.raises(ReadError, match="is not a file"):
        claim(Source("a", data=tmp_path), LIMITS)
    with pytest.raises(InvalidRequestError, match="'_x'"):
        claim(Source("a", text="x", metadata={"_x": 1}), LIMITS)


def test_a_text_is_kept_exactly(tmp_path):
    text = "  Line one\r\n\tzwei\u00a0 e\u0301 \x0c drei  \n\n\n"
    arrival = arrive(claim(Source("t", text=text), LIMITS), tmp_path, LIMITS)
    assert arrival.document.text == text
    assert arrival.original is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_copied_before_it_is_parsed(tmp_path):
    file, spool = tmp_path / "a.txt", tmp_path / "spool"
    spool.mkdir()
    file.write_text("Some words.")
    arrival = arrive(claim(Source("a.txt", data=file), LIMITS), spool, LIMITS)
    assert arrival.original is not None
    assert arrival.original.parent == spool
    assert hashlib.sha256(arrival.original.read_bytes()).hexdigest() == arrival.claim.sha256


def test_a_file_that_changes_meanwhile_is_refused_and_its_copy_removed(tmp_path):
    file, spool = tmp_path / "a.txt", tmp_path / "spool"
    spool.mkdir()
    file.write_text("Some words.")
    claimed = claim(Source("a.txt", data=file), LIMITS)
    file.write_text("Other words.")
    with pytest.raises(ReadError, match="changed while"):
        arrive(claimed, spool, LIMITS)
    assert list(spool.iterdir()) == []
