"""Every embedder keeps the promises of the seam. Those that load real weights are marked ``model``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from embedding_server import running

import embedders
from pipeline import plugins
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import ConfigurationError, EmbeddingError
from pipeline.seams import Embedder, Learner
from pipeline.types import ChunkedDocument, Document

TEXT = (
    "The tenant shall pay the rent on the first day of each month.\n\n"
    "A duck swims on the lake and dives for weed.\n\n賃貸契約は終了する。 Naïve café 🎉 owners pay."
)
NEEDS_WEIGHTS = {"sentence_transformer", "late_chunking"}


def _plugins() -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.model] if name in NEEDS_WEIGHTS else [])
        for name in plugins.names(embedders.__name__)
    ]


@pytest.fixture(scope="module", params=_plugins())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def embedder(name: str) -> Iterator[Embedder]:
    """Remote ones ask a server in this process."""
    options = __import__(f"embedders.{name}", fromlist=["TINY"]).TINY.model_dump()
    with running() as server:
        if "url" in options:
            options["url"] = options["url"].replace("http://127.0.0.1:1", server.url)
        built = plugins.load("embedders", name, **options)
        document = chunked(built, TEXT)
        if isinstance(built, Learner):
            built.learn([document])
        yield built


def chunked(embedder: Embedder, text: str) -> ChunkedDocument:
    return chunk(Document("t", text), embedder.encode(text), ChunkConfig(24, 16, 4))


def test_it_is_an_embedder(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    assert str(embedder.fingerprint) == str(embedder.fingerprint)


def test_encoding_has_exact_offsets(embedder: Embedder) -> None:
    encoding = embedder.encode(TEXT)
    assert encoding.ids.dtype == encoding.offsets.dtype == np.int32
    assert encoding.offsets.shape == (len(encoding), 2)
    pieces = [TEXT[a:b] for a, b in encoding.offsets.tolist()]
    assert {"tenant", "duck", "。", "🎉"} <= set(pieces)
    assert "".join(pieces) == "".join(TEXT.split())


def test_encoding_a_long_text_in_pieces_keeps_offsets(embedder: Embedder) -> None:
    text = " ".join(f"word{i} 東京。" for i in range(20_000))
    offsets = embedder.encode(text).offsets
    assert (np.diff(offsets[:, 0]) >= 0).all()
    assert "".join(text[a:b] for a, b in offsets.tolist()) == text.replace(" ", "")
    assert len(embedder.encode("")) == 0


def test_vectors_are_unit_rows_in_order(embedder: Embedder) -> None:
    document, other = chunked(embedder, TEXT), chunked(embedder, "Another text about rent.")
    found = embedder.embed_documents([document, other])
    for chunks, result in zip((document, other), found, strict=True):
        for vectors, of in ((result.passages, chunks.passages), (result.units, chunks.units)):
            assert vectors.dtype == np.float32
            assert vectors.shape == (len(of), embedder.fingerprint.dim)
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert result.fingerprint == embedder.fingerprint
        assert result.windowing


def test_it_finds_what_was_asked_for(embedder: Embedder) -> None:
    document = chunked(embedder, TEXT)
    (found,) = embedder.embed_documents([document])
    queries = embedder.embed_queries(["When must the tenant pay rent?", "Which duck dives on the lake?"])
    best = (queries.vectors @ found.units.T).argmax(1)
    assert ["tenant" in document.units[best[0]].text, "duck" in document.units[best[1]].text] == [True, True]


def test_it_is_deterministic_and_progress_sums_up(embedder: Embedder) -> None:
    document = chunked(embedder, TEXT)
    told: list[int] = []
    (one,), (two,) = embedder.embed_documents([document], told.append), embedder.embed_documents([document])
    np.testing.assert_array_equal(one.units, two.units)
    assert sum(told) == len(document.encoding)


def test_empty_queries_are_refused_and_no_documents_are_none(embedder: Embedder) -> None:
    for empty in ("", " \n\t"):
        with pytest.raises(EmbeddingError):
            embedder.embed_queries(["rent", empty])
    assert embedder.embed_documents([]) == []
    assert embedder.embed_queries([]).vectors.shape == (0, embedder.fingerprint.dim)


def test_misspelt_options_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no option 'dmi'"):
        plugins.load("embedders", name, dmi=64)
