"""RTF: structure, encodings, and what is not text."""

from __future__ import annotations

import pytest
from small_files import RTF

from pipeline.errors import DamagedFileError, EmptyDocumentError
from pipeline.read.builder import Hints
from pipeline.read.rtf import read


def test_structure_and_encodings() -> None:
    document = read(RTF, Hints("a.rtf"))
    assert [(b.kind, b.level, document.text[b.start : b.end]) for b in document.blocks] == [
        ("heading", 1, "Heading one"),
        ("paragraph", 0, "First paragraph with é and € and bold goes on."),
        ("footnote", 0, "A note here."),
        ("paragraph", 0, "Second\nthird link text."),
        ("list_item", 0, "1. Item one"),
        ("list_item", 0, "Item two"),
        ("table_row", 0, "A1 more | B1"),
        ("table_row", 0, "A2 | При"),
        ("heading", 2, "Sub heading"),
        ("paragraph", 0, "Emoji 😀 and {braces}"),
    ]
    assert (document.title, document.metadata) == ("My étude", {"author": "Bob"})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"{\fonttbl{\f3\fcharset128 Gothic;}}\f3 \'93\'fa\'96\'7b", "日本"),
        (rb"{\fonttbl{\f3\fcharset128 Gothic;}}\f3 \'83A", "ア"),  # a trail byte may be a plain character
        (rb"\uc2\u233\'81\'40x", "éx"),
        (rb"\uc0\u233 x", "éx"),
        (rb"a\~b\_c\-d\emdash e", "a b-cd—e"),
        (rb"A{\*\unknown not shown}{\*\shpinst{\sp{\sn k}{\sv v}}{\shptxt In a box}}B", "AIn a boxB"),
        (rb"caf" + b"\xe9", "café"),
    ],
)
def test_control_words(body: bytes, text: str) -> None:
    assert read(b"{\\rtf1\\ansi\\ansicpg1252" + body + b"\\par}", Hints()).text == text


def test_binary_data_is_cut_out() -> None:
    assert read(rb"{\rtf1 before{\pict\bin5 }}}{{} after\par}", Hints()).text == "before after"


def test_headings_by_wording_where_none_is_outlined() -> None:
    document = read(rb"{\rtf1 CHAPTER I\par It was a dark night.\par}", Hints("novel.rtf"))
    assert [s.title for s in document.sections] == ["CHAPTER I"]
    assert document.title == "novel"


def test_no_rtf_no_text_too_deep() -> None:
    with pytest.raises(DamagedFileError):
        read(b"Plain text", Hints())
    with pytest.raises(EmptyDocumentError):
        read(rb"{\rtf1\ansi{\pict 8950}\par}", Hints())
    with pytest.raises(DamagedFileError, match="10000"):
        read(b"{\\rtf1" + b"{" * 20_000, Hints())
