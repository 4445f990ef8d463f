"""Near-duplicates fall out; what says something else stays."""

from __future__ import annotations

from pipeline import duplicates
from pipeline.duplicates import Distinct

NOTICE = "The tenant shall give the landlord ninety days written notice before the end of the term."


def test_a_repetition_names_its_twin() -> None:
    distinct = Distinct()
    assert distinct.twin("Something else entirely, about the colour of the sea at dawn.") is None
    assert distinct.twin(NOTICE) is None
    assert distinct.twin(NOTICE.upper()) == 1
    assert distinct.twin("the landlord ninety days written notice before the end of the term") == 1


def test_another_number_or_a_negation_is_no_duplicate() -> None:
    long = " ".join(f"The schedule lists item w{i} for the quarter." for i in range(30))
    distinct = Distinct()
    assert distinct.twin(f"{long} The fee is 500 dollars.") is None
    assert distinct.twin(f"{long} The fee is 900 dollars.") is None
    assert distinct.twin(f"{long} The fee is not 500 dollars.") is None


def test_a_longer_text_is_new() -> None:
    distinct = Distinct()
    assert distinct.twin(NOTICE) is None
    assert distinct.twin(f"{NOTICE} If he does not, the lease goes on for another whole year.") is None


def test_what_was_looked_at_lately_is_found_again_and_no_text_is_kept(monkeypatch) -> None:
    lately = duplicates._Lately()
    texts = [f"The tenant of house {n} pays the rent on the first day of the month." for n in range(30)]
    plain = [duplicates._shingles(text) for text in texts]
    assert [lately.of(text) for text in texts] == plain
    monkeypatch.setattr(duplicates, "_shingles", None)
    assert [lately.of(text) for text in texts] == plain
    assert all(isinstance(shingle, int) for shingles in lately._kept.values() for shingle in shingles)
    assert all(len(key) == 16 for key in lately._kept)


def test_only_so_many_texts_are_remembered(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "_MOST_TEXTS", 5)
    lately = duplicates._Lately()
    for n in range(12):
        lately.of(f"one text and {n}")
    assert len(lately._kept) == 5
