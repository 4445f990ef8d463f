"""Sentences in many scripts, each expected by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sentences import line_breaks, sentences


def split(text: str) -> list[str]:
    return [text[a:b] for a, b in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Mr. Smith met Dr. J. R. Jones at 28 U.S.C. § 586(b).", "He left.", "See Fig. 2 and No. S7-07."],
        ["Is it 3.5 per cent?", "Yes!", '"Stop."', "(It was late.)", "He ran."],
        [
            "Apple Inc. announced results.",
            "He works at Apple Inc.",
            "The company grew in the U.S.",
            "It did.",
        ],
        ["Smith et al. (2017) found e.g. cats, i.e. animals.", "Then came Plan B.", "It failed...", "So."],
        ["Section 2.1 applies.", "Section 2. Term of lease.", "1. Scope of work.", "No.", "That is wrong."],
        ['He said "What?" and left.', "The end.12", "The next one.[3]", "More text."],
        ["so i went there.", "then i ate.", "ok?", "it was late.", "we left.", "fine."],
        ["Er kam am 3. Mai an.", "Das ist z. B. gut.", "Die GmbH & Co. KG zahlt ca. 5 Euro.", "Ende."],
        ["Он жил на ул. Ленина, д. 5.", "В 1990 г. он уехал.", "Всё."],
        ["Τι είναι αυτό;", "Είναι βιβλίο.", "Ναι."],
        ["यह एक वाक्य है।", "यह दूसरा है॥", "अंत"],
        ["ما هذا؟", "هذا كتاب.", "وهو جيد۔", "نعم"],
    ],
)
def test_sentences_end_where_a_reader_ends_them(expected: list[str]) -> None:
    assert split(" ".join(expected)) == expected


def test_ideographic_stops_need_no_space() -> None:
    expected = ["彼は言った。", "「行く。」と言った。", "なに？", "本当！", "はい。"]
    assert split("".join(expected)) == expected


def test_thai_ends_a_long_enough_sentence_at_a_space() -> None:
    long = "ประเทศไทยเป็นประเทศที่มีวัฒนธรรมหลากหลายและมีประวัติศาสตร์ยาวนาน"
    assert split(f"{long} {long} คนไทยใจดี") == [long, long, "คนไทยใจดี"]


def test_transcript_turns_end_at_their_line() -> None:
    assert split("Anna: Hello there\nBo: Hi\nAnna: how are you") == [
        "Anna: Hello there",
        "Bo: Hi",
        "Anna: how are you",
    ]


def test_wrapped_lines_go_on_and_blank_lines_do_not() -> None:
    wrapped = (
        "This is a long line that was wrapped by some program at about\nseventy characters a line, as plain "
        "text files often are, and\nthe sentence goes on for quite a while until it stops here."
    )
    assert split(wrapped + "\n\nA new paragraph") == [wrapped, "A new paragraph"]


def test_list_items_end_at_their_line_even_among_wrapped_prose() -> None:
    prose = (
        "The parties agree on the following points, which are listed\nbelow and are meant to be read as one"
    )
    assert split(f"{prose}:\n- the first point\n- the second point") == [
        f"{prose}:",
        "- the first point",
        "- the second point",
    ]


def test_breaks_replace_line_structure() -> None:
    assert split("one two\nthree four") == ["one two", "three four"]
    assert [("one two\nthree four")[a:b] for a, b in sentences("one two\nthree four", [3])] == [
        "one",
        "two\nthree four",
    ]


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=300)
    | st.text(alphabet='ab.!?。 \n\t"()1A', max_size=80)
)
def test_spans_are_trimmed_ordered_and_cover_all_that_is_no_space(text: str) -> None:
    spans = sentences(text)
    covered: set[int] = set()
    end_before = 0
    for start, end in spans:
        assert end_before <= start < end
        assert text[start:end] == text[start:end].strip()
        covered.update(range(start, end))
        end_before = end
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)


@given(st.text(alphabet="ab c.\n", max_size=120))
def test_line_breaks_are_line_breaks_and_hold_every_blank_line(text: str) -> None:
    found = line_breaks(text)
    assert all(text[i] == "\n" for i in found)
    assert {i for i in range(len(text)) if text[i : i + 2] == "\n\n"} <= set(found)
