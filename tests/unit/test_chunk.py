"""Where chunks begin and end, and what they know of their place. Tokens are words here."""

from __future__ import annotations

import pytest

from embedders import hashing
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import ConfigurationError
from pipeline.read.builder import DocumentBuilder
from pipeline.types import Chunk, ChunkedDocument, Document, Page, Section

EMBEDDER = hashing.build(hashing.TINY)


def chunked(document: Document, passage: int = 40, unit: int = 20, least: int = 5) -> ChunkedDocument:
    return chunk(document, EMBEDDER.encode(document.text), ChunkConfig(passage, unit, least))


def tokens(piece: Chunk) -> int:
    return piece.token_end - piece.token_start


def sentence(words: int, word: str = "word") -> str:
    return " ".join(["The", *[word] * (words - 2)]) + "."


def test_units_are_sentences_and_passages_are_full() -> None:
    text = " ".join(sentence(10, f"w{i}") for i in range(40))
    result = chunked(Document("t", text))
    assert [u.text for u in result.units] == [sentence(10, f"w{i}") for i in range(40)]
    assert {tokens(p) for p in result.passages} == {40}


def test_short_fragments_join_their_neighbour() -> None:
    result = chunked(Document("t", "Yes. " + sentence(12) + " No. Never. " + sentence(12)))
    assert min(tokens(u) for u in result.units) >= 5


def test_a_transcript_keeps_turns_apart_unless_they_are_tiny() -> None:
    long = [f"Speaker {i}: {sentence(12)}" for i in range(4)]
    result = chunked(Document("t", "\n".join([*long[:2], "Speaker 9: Yes.", *long[2:]])), 60, 30, 12)
    units = [u.text for u in result.units]
    assert long[0] in units
    assert long[3] in units
    assert "Speaker 9: Yes." not in units


def test_a_heading_stays_with_what_follows() -> None:
    builder = DocumentBuilder()
    for i in range(12):
        builder.add("heading", f"Chapter {i} Of things", level=1)
        for _ in range(1 + i % 3):
            builder.add("paragraph", sentence(11 + i % 4))
    document = builder.build()
    result = chunked(document)
    ends = {p.end for p in result.passages}
    headings = [b for b in document.blocks if b.kind == "heading"]
    assert not ends & {b.end for b in headings}
    assert all(any(u.start <= h.start and u.end > h.end for u in result.units) for h in headings)


def test_sections_that_fill_a_passage_are_not_mixed() -> None:
    builder = DocumentBuilder()
    for i in range(6):
        builder.add("heading", f"Chapter {i}", level=1)
        builder.add("paragraph", " ".join([sentence(9)] * 4))
    document = builder.build()
    starts = {p.start for p in chunked(document).passages}
    assert starts == {s.start for s in document.sections}


def test_tiny_sections_share_a_passage() -> None:
    builder = DocumentBuilder()
    for i in range(16):
        builder.add("heading", f"Point {i}", level=2)
        builder.add("paragraph", sentence(6))
    result = chunked(builder.build())
    assert min(tokens(p) for p in result.passages) >= 20


def test_table_rows_and_code_stay_whole_where_they_fit() -> None:
    builder = DocumentBuilder()
    for _ in range(7):
        builder.add("table_row", " | ".join(["cell"] * 14))  # 27 tokens: over a unit, within a passage
    builder.add("paragraph", sentence(9))
    builder.add("code", "\n".join(f"call {i} with value" for i in range(8)))  # 32 tokens
    document = builder.build()
    result = chunked(document)
    for block in document.blocks:
        inside = {u.parent for u in result.units if u.start < block.end and u.end > block.start}
        assert len(inside) == 1, block
    rows = {b.start for b in document.blocks if b.kind == "table_row"}
    assert rows <= {u.start for u in result.units}


def test_a_long_sentence_is_cut_at_clauses_then_words() -> None:
    clauses = ", ".join(" ".join([f"c{i}"] * 12) for i in range(4)) + "."
    result = chunked(Document("t", clauses))
    assert [u.text.endswith((",", ".")) for u in result.units] == [True] * 4
    words = " ".join(["w"] * 90)
    assert {tokens(u) for u in chunked(Document("t", words)).units} <= set(range(15, 21))


def test_a_word_of_100_000_letters_is_cut_by_characters() -> None:
    text = "Start here. " + "x" * 100_000 + " End of it."
    result = chunked(Document("t", text), passage=256, unit=64, least=16)
    assert max(len(u.text) for u in result.units) <= 64 * 32 + 16
    assert "".join(u.text for u in result.units).replace(" ", "") == text.replace(" ", "")
    middle = result.units[len(result.units) // 2]
    assert tokens(middle) == 1  # the one token that it is a part of


def test_letters_keep_their_marks_and_emoji_their_joiners() -> None:
    text = "e\u0301" * 400 + "👩\u200d👩\u200d👧" * 100
    for unit in chunked(Document("t", text)).units:
        assert unit.text[0] in "e👩"


def test_section_paths_and_pages() -> None:
    builder = DocumentBuilder()
    builder.page(1)
    builder.add("heading", "Lease", level=1)
    builder.add("paragraph", sentence(30))
    builder.page(2)
    builder.add("heading", "Liability", level=2)
    builder.add("paragraph", " ".join([sentence(18)] * 4))
    builder.page(3)
    builder.add("heading", "Term", level=1)
    builder.add("paragraph", sentence(30))
    result = chunked(builder.build())
    found = {(p.section, p.page_start, p.page_end) for p in result.passages}
    assert found == {("Lease", 1, 1), ("Lease > Liability", 2, 2), ("Term", 3, 3)}


def test_a_passage_over_a_page_break_names_both_pages() -> None:
    text = sentence(15) + " " + sentence(15)
    middle = len(sentence(15)) + 1
    pages = (Page(7, 0, middle, "vii"), Page(8, middle, len(text)))
    (only,) = chunked(Document("t", text, pages=pages)).passages
    assert (only.page_start, only.page_end) == (7, 8)


def test_sections_that_end_early_do_not_reach_further() -> None:
    text = sentence(30) + "\n\n" + sentence(30)
    end = len(sentence(30))
    result = chunked(Document("t", text, sections=(Section("Preamble", 1, 0, end),)))
    assert [p.section for p in result.passages] == ["Preamble", ""]


def test_white_space_has_no_chunks() -> None:
    result = chunked(Document("t", " \n\t \n"))
    assert (result.passages, result.units) == ((), ())


@pytest.mark.parametrize("sizes", [(10, 20, 5), (256, 2, 0), (256, 64, 65), (256, 64, -1), (10**6, 64, 16)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigurationError, match="tokens"):
        ChunkConfig(*sizes)


def test_options_name_every_size() -> None:
    assert ChunkConfig().options() == ("passage_tokens=128", "unit_min_tokens=16", "unit_tokens=64")


def test_white_space_and_runs_of_marks_of_any_length() -> None:
    text = "One." + " " * 100_000 + "Two." + "." * 100_000 + "three [" + "[1" * 50_000
    result = chunked(Document("t", text), passage=256, unit=64, least=16)
    assert max(len(u.text) for u in result.units) <= 64 * 32 + 16
    assert "".join(u.text for u in result.units).replace(" ", "") == text.replace(" ", "")
