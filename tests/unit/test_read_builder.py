"""The builder: offsets of blocks, sections and pages hold whatever is added."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.read.builder import DocumentBuilder

KINDS = st.sampled_from(["paragraph", "heading", "list_item", "table_row", "code", "footnote", "caption"])
TEXT = st.text(alphabet=st.sampled_from("ab \n\t\r\x00é\u0301\u00ad漢𝒳\ud800"), max_size=30)


@given(st.lists(st.tuples(KINDS, TEXT, st.floats(0, 1)), max_size=15))
def test_spans_hold(blocks: list[tuple[str, str, float]]) -> None:
    builder = DocumentBuilder()
    builder.page(1)
    for number, (kind, text, share) in enumerate(blocks, 2):
        builder.add(kind, text, level=number % 4, page_breaks=[(int(share * len(text)), number, str(number))])  # type: ignore[arg-type]
    document = builder.build()
    text = document.text
    assert text.encode("utf-8").decode("utf-8") == text
    assert "\x00" not in text and "\r" not in text
    assert [p.number for p in document.pages] == list(range(1, len(blocks) + 2))
    assert [p.end for p in document.pages] == [p.start for p in document.pages[1:]] + [len(text)]
    before = 0
    for block in document.blocks:
        assert before <= block.start < block.end <= len(text)
        assert text[block.start : block.end].strip("\n") == text[block.start : block.end]
        before = block.end
    for section in document.sections:
        assert " ".join(text[section.start :].split()).startswith(section.title)
        assert section.start < section.end <= len(text)


def test_a_page_begins_inside_a_block_where_its_words_do() -> None:
    builder = DocumentBuilder()
    builder.page(1)
    builder.add("paragraph", "  one two three", page_breaks=[(6, 2, "ii"), (10, 3, "")])
    document = builder.build()
    assert [document.text[p.start : p.end] for p in document.pages] == ["one ", "two ", "three"]
    assert [p.label for p in document.pages] == ["", "ii", ""]
