"""Plain text: wrapped and unwrapped, headings, lists, verse, transcripts, books."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from pipeline.errors import DamagedFileError, EmptyDocumentError
from pipeline.read.builder import Hints
from pipeline.read.headings import rank
from pipeline.read.text import from_text, read
from pipeline.types import Document

DATA = Path(__file__).parents[1] / "data"
PROSE = (
    "It was in July, 1805, and the speaker was the well-known Anna Pavlovna Scherer, maid of honor and "
    "favorite of the Empress Marya Fedorovna. With these words she greeted Prince Vasili Kuragin, a man of "
    "high rank and importance, who was the first to arrive at her reception. Anna Pavlovna had had a cough "
    "for some days."
)
POEM = "The woods are lovely, dark and deep,\nBut I have promises to keep,\nAnd miles to go before I sleep,"


def wrapped(*paragraphs: str, width: int = 72) -> str:
    return "\n\n".join(textwrap.fill(p, width) if "\n" not in p else p for p in paragraphs)


def shown(document: Document) -> list[tuple[str, str]]:
    return [(b.kind, document.text[b.start : b.end]) for b in document.blocks]


def test_wrapped_prose_becomes_one_line_a_paragraph_and_verse_keeps_its_lines() -> None:
    document = read(wrapped(PROSE, POEM, PROSE[::-1].strip()).encode(), Hints("a.txt"))
    assert shown(document)[0] == ("paragraph", PROSE)
    assert shown(document)[1] == ("paragraph", POEM)


def test_posted_text_is_kept_to_the_character() -> None:
    text = "\r\n  " + wrapped(PROSE, POEM).replace("\n", "\r\n") + "\x00\n\n\n"
    document = from_text(text, " A  title ")
    assert document.text == text
    assert document.title == "A title"
    assert " ".join(shown(document)[0][1].split()) == PROSE


def test_a_word_divided_at_the_line_end_is_joined_where_the_text_knows_it() -> None:
    filler = "word " * 13
    text = f"{filler}recep-\ntion {filler}\nself-\nabnegation {filler}\n\nA reception.\n"
    document = read(text.encode(), Hints())
    assert "reception word" in document.text
    assert "self-abnegation" in document.text


def test_numbers_at_line_starts_are_no_list() -> None:
    filler = "He was born in the city and lived there with his aunt for years until"
    text = "\n".join(
        [filler, "1805. Then he went to the war with his regiment and his brothers and", "came home."]
    )
    document = read(f"{text}\n\n{wrapped(PROSE)}".encode(), Hints())
    assert shown(document)[0] == ("paragraph", " ".join(text.split()))


def test_list_items_are_blocks_of_their_own_and_their_wrapped_lines_joined() -> None:
    item = "1. Apples and pears from the orchard behind the old house, picked in\n   the year before last."
    text = f"{wrapped(PROSE)}\n\nThe following:\n{item}\n2. Plums.\n"
    kinds = shown(read(text.encode(), Hints()))
    assert kinds[2:] == [("list_item", " ".join(item.split())), ("list_item", "2. Plums.")]


def test_transcript_turns_are_blocks() -> None:
    text = "Chair: Good morning, everybody.\nMs Lee: Thank you. I would like to begin.\nChair: Please do.\n"
    assert [b for _, b in shown(read(text.encode(), Hints()))] == text.splitlines()


def test_lines_that_are_paragraphs_need_no_blank_lines_between() -> None:
    long = (
        "All references to sections are to the sections of this agreement as amended from time to time. " * 3
    )
    document = from_text(f"ARTICLE 1 - DEFINITIONS\n1.01 Interpretation\n{long}\n(a) {long}\n{long}")
    assert [s.title for s in document.sections] == ["ARTICLE 1 - DEFINITIONS", "1.01 Interpretation"]
    assert [kind for kind, _ in shown(document)][2:] == ["paragraph", "list_item", "paragraph"]


def test_columns_are_rows() -> None:
    rows = ["State      Permits    Checks", "Alabama     12,431     3,201", "Wyoming         12        88"]
    assert shown(read("\n".join(rows).encode(), Hints())) == [("table_row", row) for row in rows]


def test_books_and_chapters_nest_and_contents_do_not_count() -> None:
    contents = "\n\n".join(
        ["CONTENTS", "BOOK ONE: 1805", "CHAPTER I", "CHAPTER II", "BOOK TWO: 1806", "CHAPTER I"]
    )
    body = ["BOOK ONE: 1805", "CHAPTER I", PROSE, "CHAPTER II", PROSE, "BOOK TWO: 1806", "CHAPTER I", PROSE]
    document = read(wrapped(contents, *body).encode(), Hints())
    found = [(s.level, s.title) for s in document.sections]
    assert found == [
        (2, "CONTENTS"),
        (1, "BOOK ONE: 1805"),
        (2, "CHAPTER I"),
        (2, "CHAPTER II"),
        (1, "BOOK TWO: 1806"),
        (2, "CHAPTER I"),
    ]
    one, two = (s for s in document.sections if s.level == 1)
    assert one.end == two.start
    assert two.end == len(document.text)


def test_a_chapter_takes_the_title_below_its_number() -> None:
    document = read(
        wrapped("CHAPTER I", "DOWN THE RABBIT-HOLE", PROSE, "CHAPTER II.\nThe Pool", PROSE).encode(), Hints()
    )
    assert [s.title for s in document.sections] == ["CHAPTER I DOWN THE RABBIT-HOLE", "CHAPTER II. The Pool"]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("BOOK ELEVEN: 1812", 1),
        ("FIRST EPILOGUE: 1813 - 20", 1),
        ("Zweites Buch", 1),
        ("CHAPTER XXIV", 2),
        ("Chapter the Last", 2),
        ("Item 1A. Risk Factors", 2),
        ("Глава 3", 2),
        ("Chapitre IV. Le départ", 2),
        ("第三章　旅立ち", 2),
        ("第二部", 1),
        ("Section 2.", 3),
        ("2.1 Scope", 3),
        ("IV.", 2),
        ("EXECUTIVE SUMMARY", 2),
        ("TERMS AND CONDITIONS", 4),
        ("Part I of this agreement shall survive,", 0),
        ("CHAPTER II ........ 17", 0),
        ("2.1 Scope ................ 4", 0),
        ("3. Buy milk, eggs and bread.", 0),
        ('"STOP!"', 0),
        ("A short sentence.", 0),
        ("I", 2),
        ("1805", 0),
    ],
)
def test_what_is_a_heading(line: str, level: int) -> None:
    assert rank(line) == level


def test_underlines_and_hashes_make_headings() -> None:
    document = from_text("Scope\n=====\nThis is the text.\n\n### Deeper\nMore text here.\n")
    assert [(s.level, s.title) for s in document.sections] == [(1, "Scope"), (3, "Deeper")]
    assert ("paragraph", "This is the text.") in shown(document)


def test_gutenberg_licence_is_a_section_of_its_own() -> None:
    text = wrapped(
        "The Project Gutenberg eBook of Emma\n\nTitle: Emma\n\nAuthor: Jane Austen",
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***",
        "CHAPTER I",
        PROSE,
        "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***",
        "START: FULL LICENSE",
        PROSE,
    )
    document = read(text.encode(), Hints("pg158.txt"))
    assert document.title == "Emma"
    assert document.metadata["author"] == "Jane Austen"
    chapter, licence = document.sections[0], document.sections[1]
    assert (chapter.title, licence.level) == ("CHAPTER I", 1)
    assert chapter.end == licence.start
    assert "LICENSE" in document.text[licence.start : licence.end]


def test_form_feeds_are_pages() -> None:
    document = read(b"First page text.\n\fSecond page text.\n\fThird.\n", Hints())
    assert [document.text[p.start : p.end].strip("\n\f") for p in document.pages] == [
        "First page text.",
        "Second page text.",
        "Third.",
    ]


def test_japanese_novel_in_shift_jis() -> None:
    document = read((DATA / "botchan_shift_jis.txt").read_bytes(), Hints("botchan.txt"))
    assert document.title == "坊っちゃん"
    assert "夏目漱石" in document.text
    assert "《" not in document.text
    assert "［＃" not in document.text
    assert [s.title for s in document.sections] == [*"一二三四五六七八九十", "十一"]
    assert document.text[document.sections[0].start :].startswith(
        "一\n\n　親譲りの無鉄砲で小供の時から損ばかりしている。"
    )


def test_no_text_and_no_unicode() -> None:
    with pytest.raises(EmptyDocumentError):
        from_text(" \n")
    with pytest.raises(DamagedFileError, match="offset 3"):
        from_text("abc\ud800def")


def test_title_falls_back_to_the_file_name() -> None:
    assert read(b"CHAPTER I\n\nSome text.", Hints("folder/novel.txt")).title == "novel"
