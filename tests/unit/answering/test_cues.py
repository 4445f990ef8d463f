from __future__ import annotations

import pytest

from pipeline import cues
from pipeline.numerals import numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.50 SEK", ["1234.5"]),
        ("5 million", ["5000000"]),
        ("five million", ["5000000"]),
        ("5,000,000", ["5000000"]),
        ("$2.5bn", ["2500000000"]),
        ("twenty-one guns", ["21"]),
        ("a million men", ["1000000"]),
        ("the 3rd of May", ["3th"]),
        ("the third", ["3th"]),
        ("3,5 %", ["3.5"]),
        ("1.234.567,8", ["1234567.8"]),
        ("section 1.2.3", ["1.2.3"]),
        ("٢٥ years", ["25"]),
        ("12–14 days", ["12", "14"]),
        ("10 and 10", ["10", "10"]),
        ("no one", []),
    ],
)
def test_numbers_are_canonical(text, expected):
    assert numbers(text) == expected


def test_names_are_capitals_and_codes():
    assert cues.names("In 1901 Röntgen's H1N1 lab in new York") == ["In", "Röntgen", "H1N1", "York"]
    assert cues.names("LIMITATION OF LIABILITY UNDER SB12") == ["SB12"]


@pytest.mark.parametrize(
    "text", ["It isn't so.", "Das ist nicht so.", "ce n'est pas", "这不是", "это не так"]
)
def test_negations_of_several_languages(text):
    assert cues.negations(cues.words(text)) >= 1


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("rates increased", "rates decreased", True),
        ("it may open", "the Mayor sits", False),
        ("it rose and fell", "it fell and rose", False),
        ("der Hund", "die Katze", False),
    ],
)
def test_opposites(ours, theirs, expected):
    assert cues.opposed(cues.words(ours), cues.words(theirs)) is expected


@pytest.mark.parametrize(
    ("question", "sentence", "fit"),
    [
        ("When was it founded?", "It was founded in May 1869.", 1),
        ("When was it founded?", "It was founded by monks.", 0),
        ("How many members are there?", "There are twelve members.", 1),
        ("Who founded it?", "It was founded by Ada Byron.", 1),
        ("Who founded it?", "It was founded by monks.", 0),
        ("Wer hat es gegründet?", "Es wurde von Mönchen gegründet.", 0.5),
    ],
)
def test_the_kind_of_thing_asked_for(question, sentence, fit):
    assert cues.answer_type_fit(question, sentence) == fit
