"""Whatever the text and the tokenizer, chunks have exact offsets and lose and repeat nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedders import hashing
from pipeline.chunk import ChunkConfig, chunk
from pipeline.read.builder import DocumentBuilder
from pipeline.types import Chunk, ChunkedDocument, Document, Encoding

WORDS = st.sampled_from(
    [
        *("the", "lease", "No.", "5.", "ends?", "Mr.", "(a)", "a,b;c:", "—", "x" * 300),
        *("。", "賃貸契約は終了する。", "ไทยไม่มีจุด", "étage", "e\u0301\u0323"),
        *("👩\u200d👩\u200d👧", "\u200b", "\ufffc", "\x01"),
    ]
)
PROSE = st.lists(WORDS, min_size=1, max_size=40).flatmap(
    lambda words: st.lists(
        st.sampled_from([" ", "", "\n", "\n\n", "\u3000"]), min_size=len(words), max_size=len(words)
    ).map(lambda gaps: "".join(w + g for w, g in zip(words, gaps, strict=True)))
)
TEXT = PROSE | st.text(alphabet=st.characters(codec="utf-8"), max_size=200)
KINDS = st.sampled_from(["paragraph", "heading", "list_item", "table_row", "code", "footnote", "caption"])
SIZES = st.tuples(st.integers(4, 40), st.integers(0, 12), st.integers(1, 6)).map(
    lambda t: ChunkConfig(passage_tokens=t[0] * t[2], unit_tokens=t[0], unit_min_tokens=min(t[1], t[0]))
)


def built(blocks: list[tuple[str, str, int]]) -> Document:
    builder = DocumentBuilder()
    for number, (kind, text, level) in enumerate(blocks, 1):
        if number % 2:
            builder.page(number)
        builder.add(kind, text, level=level)  # type: ignore[arg-type]
    return builder.build()


DOCUMENTS = TEXT.map(lambda text: Document("t", text)) | st.lists(
    st.tuples(KINDS, TEXT, st.integers(1, 4)), min_size=1, max_size=8
).map(built)


def words(text: str, _seed: int) -> Encoding:
    return hashing.build(hashing.TINY).encode(text)


def hostile(text: str, seed: int) -> Encoding:
    """Tokens as byte fallback, unknown words and added markers make them: several on one character,
    one over many, none where characters are dropped, and some of (0, 0)."""
    rng = np.random.default_rng(seed)
    spans, at = [], 0
    while at < len(text):
        step = int(rng.choice([1, 1, 2, 3, 50]))
        kind = rng.integers(0, 6)
        if kind == 0:
            spans.append((0, 0))
        if kind != 1:
            spans.extend([(at, min(at + step, len(text)))] * int(rng.choice([1, 1, 1, 4])))
        at += step
    offsets = np.array(spans, np.int32).reshape(-1, 2)
    return Encoding(np.arange(len(offsets), dtype=np.int32), offsets)


def check_cover(document: Document, chunks: tuple[Chunk, ...]) -> None:
    covered = np.zeros(len(document.text), np.int64)
    for i, piece in enumerate(chunks):
        assert piece.ordinal == i
        assert document.text[piece.start : piece.end] == piece.text == piece.text.strip()
        assert piece.text
        covered[piece.start : piece.end] += 1
    assert covered.max(initial=0) <= 1
    assert all(document.text[i].isspace() for i in np.flatnonzero(covered == 0))


def check_tokens(result: ChunkedDocument, config: ChunkConfig) -> None:
    for chunks in (result.passages, result.units):
        reached = 0
        for piece in chunks:
            assert piece.token_start in (reached, reached - 1)
            reached = max(reached, piece.token_end)
        assert reached == (len(result.encoding) if chunks else 0)
    # Only a single character, which cannot be cut, may have more tokens than fit (with its marks: 60), and
    # the last chunk those of the white space at the end of the text.
    starts, end = np.maximum.accumulate(result.encoding.offsets[:, 0]), len(result.document.text.rstrip())
    within = int(np.searchsorted(starts, end))
    for chunks, most in ((result.passages, config.passage_tokens), (result.units, config.unit_tokens)):
        assert all(min(c.token_end, within) - c.token_start <= most or len(c.text) < 60 for c in chunks)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(DOCUMENTS, SIZES, st.sampled_from([words, hostile]), st.integers(0, 2**32 - 1))
def test_chunks_are_exact(document: Document, config: ChunkConfig, tokenize: object, seed: int) -> None:
    encoding: Encoding = tokenize(document.text, seed)  # type: ignore[operator]
    result = chunk(document, encoding, config)
    check_cover(document, result.passages)
    check_cover(document, result.units)
    check_tokens(result, config)
    for unit in result.units:
        parent = result.passages[unit.parent]
        assert parent.start <= unit.start < unit.end <= parent.end
    assert all(p.parent == p.ordinal for p in result.passages)
    assert {u.parent for u in result.units} == set(range(len(result.passages)))
