"""Near-duplicates fall out; what says something else stays."""

from __future__ import annotations

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
