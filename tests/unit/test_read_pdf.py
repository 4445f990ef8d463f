"""The PDF reader: reading order, paragraphs, tables, notes, headings, pages, and damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import DamagedFileError, NoTextError, ReaderLimitError
from pipeline.read import pdf as reader
from pipeline.read.builder import Hints
from pipeline.read.salvage import salvage
from pipeline.types import Document
from tests.pdf_writer import Line, pdf, stack

DATA = Path(__file__).parents[1] / "data"
EXAMPLES = Path(__file__).parents[2] / "examples"

LEFT = [
    "The left column speaks of rivers and of",
    "the towns that stand on their banks, for",
    "there the first mills were built by hand",
    "and there the first bridges were broken",
    "by floods that nobody had foreseen until",
    "the water stood as high as the windows.",
]
RIGHT = [
    "The right column speaks of mountains and",
    "of the passes that lead across them, for",
    "there the first roads were cut in stone",
    "and there the first tolls were collected",
    "by lords whose castles are ruins today",
    "although their names are on every map.",
]


def read(data: bytes, name: str = "file.pdf") -> Document:
    return reader.read(data, Hints(name=name))


def kinds(document: Document, kind: str) -> list[str]:
    return [document.text[b.start : b.end] for b in document.blocks if b.kind == kind]


def page_text(document: Document, number: int) -> str:
    page = next(p for p in document.pages if p.number == number)
    return document.text[page.start : page.end]


def test_columns_are_read_one_after_the_other_with_what_spans_them_in_between() -> None:
    lines = [
        Line(72, 72, "A Title Across Both Columns of This Page", 18),
        *stack(LEFT, 72, 120),
        *stack(RIGHT, 320, 124),
        Line(72, 220, "A line of text that runs across the whole page, from one margin to the other one."),
        *stack([line.replace("rivers", "lakes") for line in LEFT], 72, 250),
        *stack([line.replace("mountains", "valleys") for line in RIGHT], 320, 250),
    ]
    document = read(pdf([lines]))
    order = [
        "A Title",
        "speaks of rivers",
        "windows",
        "speaks of mountains",
        "every map",
        "runs across",
        "lakes",
        "valleys",
    ]
    places = [document.text.index(words) for words in order]
    assert places == sorted(places)
    assert " ".join(LEFT) in document.text
    assert kinds(document, "heading") == ["A Title Across Both Columns of This Page"]


def test_three_columns() -> None:
    columns = [
        [f"{name} {word} goes on in its column" for word in ("first", "second", "third", "fourth")]
        for name in "ABC"
    ]
    lines = [line for i, column in enumerate(columns) for line in stack(column, 40 + 185 * i, 100)]
    text = " ".join(read(pdf([lines])).text.split())
    assert text == " ".join(line for column in columns for line in column)


def test_a_table_keeps_its_rows_and_joins_currency_signs_to_their_numbers() -> None:
    lines = [Line(72, 80, "The balance sheet follows and it is audited as the law of the land demands it.")]
    rows = [
        ("Cash", "19,334", "20,522"),
        ("Inventories", "11,461", "16,047"),
        ("Total assets", "83,402", "131,310"),
    ]
    for i, (label, before, now) in enumerate(rows):
        y = 110 + 14 * i
        lines += [
            Line(72, y, label),
            Line(340, y, "$"),
            Line(352, y, before),
            Line(440, y, "$"),
            Line(452, y, now),
        ]
    table = kinds(read(pdf([lines])), "table_row")
    assert table == [f"{label} | ${before} | ${now}" for label, before, now in rows]


def test_words_hyphenated_at_line_ends_are_joined_but_compounds_keep_their_hyphen() -> None:
    lines = [
        "The long-term plan of the depart-",
        "ment is described below. Every long-",
        "term plan has its limits, as state-of-the-",
        "art methods have theirs, says the department.",
    ]
    text = read(pdf([stack(lines, 72, 100)])).text
    assert "the department is described" in text
    assert "Every long-term plan" in text
    assert "state-of-the-art methods" in text


def body_page(number: int) -> list[Line]:
    lines = [
        f"Sentence {i} of page {number} is long enough to fill the whole line of text." for i in range(8)
    ]
    return [
        Line(72, 50, f"{number}      The Running Head of the Book", 9),
        *stack(lines, 72, 100),
        Line(300, 740, str(number + 6)),
    ]


def test_running_heads_and_page_numbers_are_dropped_and_the_numbers_become_labels() -> None:
    document = read(pdf([body_page(n) for n in range(1, 5)]))
    assert document.text.count("The Running Head") == 1  # kept once: it stands nowhere else
    assert "Sentence 7 of page 4" in document.text
    assert not any(line.strip().isdigit() for line in document.text.splitlines())
    assert [page.number for page in document.pages] == [1, 2, 3, 4]


def test_a_paragraph_across_pages_is_one_and_the_page_map_is_exact() -> None:
    first = [*LEFT, "and this sentence is not finished at the"]
    second = ["end of its page but on the next one only.", "Then another sentence follows it at once."]
    document = read(pdf([stack(first, 72, 600), stack(second, 72, 72)]))
    assert "is not finished at the end of its page" in document.text
    assert page_text(document, 2).startswith("end of its page")
    assert page_text(document, 1).endswith("finished at the ")
    assert len(kinds(document, "paragraph")) == 1


def test_a_footnote_does_not_interrupt_the_sentence_that_runs_over_the_page() -> None:
    first = [
        *stack([*LEFT, "A claim with a note"], 72, 500),
        Line(156, 568, "7", 6),
        Line(162, 572, "goes on to the next full line of"),
        Line(72, 700, "7 See the other book on rivers, which says the same.", 7),
    ]
    second = stack(["text on the next page without a break.", *RIGHT], 72, 72)
    document = read(pdf([first, second]))
    assert "A claim with a note⁷ goes on to the next full line of text on the next page" in document.text
    assert kinds(document, "footnote") == ["7 See the other book on rivers, which says the same."]
    assert "See the other book" in page_text(document, 1)


def test_headings_from_type_and_levels_from_the_outline() -> None:
    page = [
        Line(72, 72, "Part One", 20),
        Line(72, 110, "Chapter 1", 14),
        *stack(LEFT, 72, 140),
        Line(72, 240, "A bold line", bold=True),
        *stack(RIGHT, 72, 270),
    ]
    plain = read(pdf([page]))
    assert [(s.title, s.level) for s in plain.sections] == [
        ("Part One", 1),
        ("Chapter 1", 2),
        ("A bold line", 3),
    ]
    marked = read(pdf([page], outline=[("Chapter 1", 1)]))
    assert ("Chapter 1", 1) in [(s.title, s.level) for s in marked.sections]


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_a_turned_page_reads_like_an_upright_one(rotate: int) -> None:
    lines = [*stack(LEFT, 72, 120), *stack(RIGHT, 320, 120)]
    assert read(pdf([lines], rotate=rotate)).text == read(pdf([lines])).text


def test_list_items_and_captions() -> None:
    lines = [
        *stack(LEFT, 72, 80),
        *stack(["• first point", "• second point"], 72, 170),
        Line(72, 230, "Figure 3. A bridge.", 8),
    ]
    document = read(pdf([lines]))
    assert kinds(document, "list_item") == ["• first point", "• second point"]
    assert kinds(document, "caption") == ["Figure 3. A bridge."]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("A Real Title", "A Real Title"),
        ("Microsoft Word - draft.doc", "LARGE"),
        ("0001018724-18-000005", "LARGE"),
        ("", "LARGE"),
    ],
)
def test_title(declared: str, expected: str) -> None:
    page = [Line(72, 72, "LARGE", 24), *stack(LEFT, 72, 120)]
    assert read(pdf([page], title=declared)).title == expected
    assert read(pdf([stack(LEFT, 72, 120)], title=""), "report_2022.pdf").title == "report_2022"


def test_no_text_at_all_and_no_text_on_some_pages() -> None:
    with pytest.raises(NoTextError, match="2 pages"):
        read(pdf([[], []]))
    drawn = pdf([stack(LEFT, 72, 72), [Line(72, 72, "X")]]).replace(b"(X) Tj", b"0 0 9 9 re f")
    document = read(drawn)
    assert document.warnings == (
        "No text on page 2, which show images only; OCR would be needed to read them.",
    )
    assert [(p.number, p.start == p.end) for p in document.pages] == [(1, False), (2, True)]


def test_a_file_without_page_tree_is_recovered_with_a_warning() -> None:
    whole = pdf([stack(LEFT, 72, 72), stack(RIGHT, 72, 72)])
    broken = whole.replace(b"2 0 obj\n<</Type/Pages", b"2 0 obx\n<</Txxx/Pxxxx")
    document = read(broken)
    assert " ".join(LEFT) in document.text and " ".join(RIGHT) in document.text
    assert "2 page(s) were recovered" in document.warnings[0]
    assert salvage(b"%PDF-1.4 nothing here") is None


def test_rubbish_is_a_damaged_file_and_a_bomb_of_pages_a_limit() -> None:
    with pytest.raises(DamagedFileError, match=r"file\.pdf is not a valid PDF"):
        read(b"%PDF-1.7\n" + bytes(range(256)) * 40)
    kids = b"6 0 R " * (reader.MAX_PAGES + 1)
    whole = pdf([stack(LEFT, 72, 72)])
    bomb = whole.replace(b"/Count 1/Kids[6 0 R]", b"/Count %d/Kids[%s]" % (reader.MAX_PAGES + 1, kids))
    with pytest.raises(ReaderLimitError, match="20,001 pages"):
        read(bomb)


def test_a_real_table_of_55_rows() -> None:
    rows = kinds(read((DATA / "firearm_checks_table.pdf").read_bytes()), "table_row")
    alabama = next(row for row in rows if row.startswith("Alabama"))
    assert alabama.startswith(
        "Alabama | 18,870 | 23,022 | 22,650 | 859 | 1,178 | 0 | 14 | 15 | 0 | 2,179 | 2,307"
    )
    assert alabama.endswith("| 0 | 3 | 2 | 0 | 71,137")
    assert sum(row.count(" | ") == alabama.count(" | ") for row in rows) >= 54


def test_a_real_page_of_three_columns() -> None:
    document = read((DATA / "federal_register_3col.pdf").read_bytes())
    text = " ".join(document.text.split())
    assert "after takeoff from Soekarno-Hatta International Airport in Jakarta" in text
    assert "perform a non-normal procedure. To ensure that after any foreseeable failure" in text
    assert "Agência Nacional de Aviação Civil" in text
    assert [page.label for page in document.pages[1:4]] == ["47699", "47700", "47701"]
    assert any(note.startswith("¹ Preliminary KNKT") for note in kinds(document, "footnote"))
    assert "jbell on" not in text and text.count("VerDate") <= 1


def test_a_real_release_with_footnotes_and_an_outline() -> None:
    document = read((EXAMPLES / "investment_adviser_rule.pdf").read_bytes())
    text = " ".join(document.text.split())
    assert "to bring broker-dealers within the scope of the Advisers Act because of this aspect" in text
    assert any(note.startswith("¹ 15 U.S.C. 80b.") for note in kinds(document, "footnote"))
    levels = {section.title: section.level for section in document.sections}
    assert levels["I. INTRODUCTION"] == 1
    assert levels["A. Historical Context and Legislative History"] == 2
