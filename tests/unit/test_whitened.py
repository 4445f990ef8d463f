"""Partial whitening against its definition, and learning anew what vectors share."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from api.build import open_longleaf
from api.settings import load_settings
from embedders import centred, hashing, whitened
from pipeline import learnt, plugins
from pipeline.chunk import ChunkConfig, chunk
from pipeline.errors import (
    ConfigurationError,
    DiskFullError,
    EmbeddingError,
    FingerprintMismatchError,
    InvalidRequestError,
    NotFoundError,
)
from pipeline.ingest import Source
from pipeline.learning import learn
from pipeline.reindex import reindex
from pipeline.seams import Learner
from pipeline.types import ChunkedDocument, Document, Query

DIM = 16


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors with a common mean and two strong directions."""
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(2, DIM))
    made = rng.normal(size=DIM) + rng.normal(size=(count, 2)) * 3 @ strong + rng.normal(size=(count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def document(seed: int, embedder, sentences: int = 60) -> ChunkedDocument:
    rng = np.random.default_rng(seed)
    words = ["tenant", "rent", "duck", "lake", "roof", "court", "glass", "iron", "river", f"word{seed}"]
    text = " ".join(" ".join(rng.choice(words, 6)).capitalize() + "." for _ in range(sentences))
    return chunk(Document("Lease", text), embedder.encode(text), ChunkConfig(24, 8, 4))


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_vectors_are_multiplied_by_a_power_of_their_second_moment(exponent: float) -> None:
    """The definition as one matrix: (1 + M / m) to the power of minus half the exponent."""
    given = vectors(4000)
    moment = given.T.astype(np.float64) @ given / len(given)
    usual = np.trace(moment) / DIM
    shrunk = (len(given) * moment + DIM * usual * np.eye(DIM)) / (len(given) + DIM)
    expected = given @ fractional_matrix_power(np.eye(DIM) + shrunk / usual, -exponent / 2)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = whitened.whitening(given, exponent)
    np.testing.assert_allclose(found.apply(given, "x"), expected, atol=1e-5)
    before, after = (np.linalg.eigvalsh(v.T @ v / len(v)) for v in (given, expected))
    assert after[-1] / after.mean() < before[-1] / before.mean()


def test_few_vectors_decide_little() -> None:
    given = vectors(2)
    found = whitened.whitening(given, 0.5).apply(given, "x")
    assert ((found * given).sum(1) > 0.98).all()
    many = whitened.whitening(vectors(4000), 0.5).apply(given, "x")
    assert ((many * given).sum(1) < (found * given).sum(1)).all()


def test_learning_anew_gives_other_vectors_another_name(tmp_path: Path) -> None:
    inner = hashing.build(hashing.Config(dim=64))
    embedder = whitened.WhitenedEmbedder(inner, 0.5, tmp_path)
    first, others = document(0, inner), [document(n, inner) for n in range(1, 6)]
    (before,) = embedder.learn([first])
    known = embedder.fingerprint
    told: list[int] = []
    embedder.learn(others)  # not anew: later documents change nothing
    np.testing.assert_array_equal(embedder.embed_documents([first])[0].units, before.units)
    made = embedder.learn(others, told.append, anew=True)
    assert sum(told) == sum(len(d.encoding) for d in others)
    (after,) = embedder.embed_documents([first])
    assert {found.fingerprint for found in (*made, after)} == {embedder.fingerprint} != {known}
    assert np.abs(after.units - before.units).max() > 1e-3
    again = whitened.WhitenedEmbedder(inner, 0.5, tmp_path)  # another process, later
    assert again.fingerprint == embedder.fingerprint
    np.testing.assert_array_equal(again.embed_documents([first])[0].units, after.units)


def test_nothing_is_embedded_before_something_was_learnt(tmp_path: Path) -> None:
    """Who only wants vectors, as a request over HTTP does, decides nothing for others."""
    inner = hashing.build(hashing.Config(dim=64))
    embedder = whitened.WhitenedEmbedder(inner, 0.5, tmp_path)
    for ask in (
        lambda: embedder.embed_documents([document(0, inner)]),
        lambda: embedder.embed_queries(["a"]),
    ):
        with pytest.raises(EmbeddingError, match="not learnt yet"):
            ask()
    assert not embedder.has_learnt
    empty = chunk(Document("Blank", " "), inner.encode(" "), ChunkConfig(24, 8, 4))
    assert len(embedder.learn([empty])[0].units) == 0
    assert not list(tmp_path.glob("statistics*"))


def test_a_process_that_knew_the_old_name_keeps_to_what_it_stands_for(tmp_path: Path) -> None:
    inner = hashing.build(hashing.Config(dim=64))
    ingesting, serving = (whitened.WhitenedEmbedder(inner, 0.5, tmp_path) for _ in range(2))
    (expected,) = ingesting.learn([document(0, inner)])
    known = serving.fingerprint  # it has read the name, and no statistics yet
    ingesting.learn([document(1, inner)], anew=True)
    (found,) = serving.embed_documents([document(0, inner)])
    assert found.fingerprint == known != ingesting.fingerprint
    np.testing.assert_array_equal(found.units, expected.units)


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_learn_at_first_one_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Also on a file system without hard links."""

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", link)
    inner = hashing.build(hashing.Config(dim=64))
    one, other = (whitened.WhitenedEmbedder(inner, 0.5, tmp_path) for _ in range(2))
    assert one.fingerprint == other.fingerprint
    assert not (one.has_learnt or other.has_learnt)
    one._keep(one.fit(inner.embed_documents([document(0, inner)])[0].units), anew=False)
    other._keep(other.fit(inner.embed_documents([document(1, inner)])[0].units), anew=False)
    first, second = (each.embed_documents([document(2, inner)])[0] for each in (one, other))
    np.testing.assert_array_equal(first.units, second.units)
    assert len(list(tmp_path.iterdir())) == 2, "the name, one file of statistics, and no drafts"


def test_learning_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = hashing.build(hashing.Config(dim=64))
    embedder = whitened.WhitenedEmbedder(inner, 0.5, tmp_path)
    (expected,) = embedder.learn([document(0, inner)])
    known = embedder.fingerprint

    def full(folder: Path, name: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(learnt, "name_it", full)
    with pytest.raises(DiskFullError, match="No space"):
        embedder.learn([document(1, inner)], anew=True)
    for each in (embedder, whitened.WhitenedEmbedder(inner, 0.5, tmp_path)):
        assert each.fingerprint == known
        np.testing.assert_array_equal(each.embed_documents([document(0, inner)])[0].units, expected.units)


def test_statistics_of_before_there_was_whitening_are_read(tmp_path: Path) -> None:
    inner = hashing.build(hashing.Config(dim=64))
    embedder = centred.CentredEmbedder(inner, 2, tmp_path)
    (expected,) = embedder.learn([document(0, inner)])
    (file,) = tmp_path.glob("statistics-*.npz")
    with np.load(file) as stored:
        parts = {name: stored[name] for name in stored.files if name != "kept"}
    file.unlink()
    np.savez(tmp_path / "statistics.npz", **parts)
    (found,) = centred.CentredEmbedder(inner, 2, tmp_path).embed_documents([document(0, inner)])
    np.testing.assert_array_equal(found.units, expected.units)


def test_what_cannot_be_learnt_is_refused(tmp_path: Path) -> None:
    options = {"name": "whitened", "inner": "hashing", "options": {"dim": 64}}
    settings = load_settings({"data": tmp_path, "embedder": options, "indexer": {"name": "exact"}})
    with open_longleaf(settings) as longleaf:
        parts = (longleaf.ledger, longleaf.embedder, settings.chunking)
        assert isinstance(longleaf.embedder, Learner)
        with pytest.raises(NotFoundError):
            learn(*parts, collection="nowhere", tokens=1000)
        list(longleaf.ingestor.ingest([Source(name="a", text="The tenant pays rent.")]))
        longleaf.ingestor.delete("default", "default", longleaf.ledger.documents("default", "default")[0].id)
        with pytest.raises(InvalidRequestError, match="no text to learn from"):
            learn(*parts, tokens=1000)
        with pytest.raises(ConfigurationError, match="learns nothing"):
            learn(longleaf.ledger, hashing.build(hashing.Config()), settings.chunking, tokens=1000)
    with pytest.raises(ConfigurationError, match="exponent"):
        plugins.load("embedders", "whitened", exponent=0)
    with pytest.raises(ConfigurationError, match="cannot wrap"):
        plugins.load("embedders", "whitened", inner="centred")


def test_a_collection_is_learnt_from_and_indexed_anew(tmp_path: Path) -> None:
    """Until then its index refuses the vectors; only as much is read as was asked for."""
    options = {"name": "whitened", "inner": "hashing", "options": {"dim": 64}}
    settings = load_settings({"data": tmp_path, "embedder": options, "indexer": {"name": "exact"}})
    texts = {n: document(n, hashing.build(hashing.Config())).document.text for n in range(8)}
    with open_longleaf(settings) as longleaf:
        list(longleaf.ingestor.ingest([Source(name=f"{n}", text=text) for n, text in texts.items()]))
        before = str(longleaf.embedder.fingerprint)
        told: list[tuple[int, int]] = []
        found = learn(
            longleaf.ledger,
            longleaf.embedder,
            settings.chunking,
            tokens=1000,
            progress=lambda *now: told.append(now),
        )
        assert 0 < found.documents < len(texts)
        assert found.tokens >= 1000
        assert told[-1] == (found.tokens, found.tokens)
        assert found.fingerprint != before
        assert found.outdated == [("default", "default")]
        with pytest.raises(FingerprintMismatchError):
            longleaf.retriever.search(Query("rent"))
        reindex(longleaf.ledger, longleaf.indexer, longleaf.embedder, longleaf.analyser, settings.chunking)
        assert longleaf.retriever.search(Query("Which word7 is it?", top_k=1)).hits[0].title == "7"
