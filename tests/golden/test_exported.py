"""A graph for ONNX Runtime or OpenVINO gives the vectors that torch gives."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import VOCABULARY, add_dense

from embedders import late_chunking, sentence_transformer
from pipeline.chunk import ChunkConfig, chunk
from pipeline.encoder import exported
from pipeline.encoder.folder import read_folder
from pipeline.encoder.library import LibraryEncoder
from pipeline.errors import ConfigurationError, MissingDependencyError, ModelError
from pipeline.positions import Choice, Native
from pipeline.read.text import from_text

Make = Callable[..., Path]
TEXT = "the tenant pays rent. a duck swims on a lake, the duck pays. " * 12
QUERIES = ["the tenant pays rent", "x", "a duck swims on a lake. " * 9]


def needs(backend: str) -> Any:
    packages = exported._PACKAGES[backend]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.param(
        backend, marks=pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
    )


BACKENDS = [needs("onnx"), needs("openvino")]


def embedder(folder: Path, cache: Path, **options: Any) -> late_chunking.LateChunkingEmbedder:
    options = {"dtype": "float32", "threads": 1, "overlap_tokens": 4, **options}
    return late_chunking.build(late_chunking.Config(model=str(folder), cache=cache, **options))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model_type", ["bert", "mpnet", "modernbert"])
def test_token_vectors_are_those_of_torch(
    make_model: Make, tmp_path: Path, backend: Any, model_type: str
) -> None:
    folder = read_folder(make_model(model_type))
    choice = Choice(Native(), folder.positions)
    rng = np.random.default_rng(1)
    lengths = [17, 3, 3, 1, 60]
    ids = rng.integers(5, len(VOCABULARY), sum(lengths))
    graph = exported.ExportedEncoder(
        folder, backend, "float32", choice, revision="a" * 64, cache=tmp_path, threads=1
    )
    wanted = LibraryEncoder(folder, "float32", "cpu", choice)(ids, lengths)
    np.testing.assert_allclose(graph(ids, lengths), wanted, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("positions", ["native", "pi:2"])
def test_late_chunks_and_queries_are_those_of_torch(
    bert: Path, tmp_path: Path, backend: Any, positions: str
) -> None:
    plain = embedder(bert, tmp_path, window_tokens=64, positions=positions)
    graph = embedder(bert, tmp_path, window_tokens=64, positions=positions, backend=backend)
    assert graph.fingerprint == plain.fingerprint
    document = from_text(TEXT, "d")
    cut = chunk(document, plain.encode(document.text), ChunkConfig(64, 16, 4))
    ours, wanted = graph.embed_documents([cut])[0], plain.embed_documents([cut])[0]
    assert ours.windowing == wanted.windowing
    np.testing.assert_allclose(ours.units, wanted.units, atol=1e-5)
    np.testing.assert_allclose(ours.passages, wanted.passages, atol=1e-5)
    np.testing.assert_allclose(
        graph.embed_queries(QUERIES).vectors, plain.embed_queries(QUERIES).vectors, atol=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_is_made_once_for_weights_positions_and_versions(
    bert: Path, tmp_path: Path, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    export = exported._export

    def counted(folder: Any, backend: Any, choice: Any, out: Path) -> None:
        made.append(out)
        export(folder, backend, choice, out)

    monkeypatch.setattr(exported, "_export", counted)
    first = embedder(bert, tmp_path, backend=backend)
    vectors = first.embed_queries(QUERIES).vectors
    again = embedder(bert, tmp_path, backend=backend).embed_queries(QUERIES).vectors
    np.testing.assert_array_equal(vectors, again)
    assert len(made) == 1
    [folder] = tmp_path.glob(f"{backend}-*")
    assert first.fingerprint.revision[:16] in folder.name
    embedder(bert, tmp_path, backend=backend, positions="pi:2").embed_queries(QUERIES)
    assert len(made) == 2
    next(folder.glob("model.*")).write_bytes(b"damaged")
    repaired = embedder(bert, tmp_path, backend=backend).embed_queries(QUERIES).vectors
    np.testing.assert_array_equal(vectors, repaired)
    assert len(made) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_side_by_side_are_the_same(bert: Path, tmp_path: Path, backend: Any) -> None:
    one = embedder(bert, tmp_path, backend=backend, batch_tokens=16)
    many = [f"{text} {i}" for i in range(12) for text in ("the duck", "a tenant pays rent")]
    wanted = one.embed_queries(many).vectors
    import torch

    before = torch.get_num_threads()
    try:
        found = (
            embedder(bert, tmp_path, backend=backend, batch_tokens=16, threads=2).embed_queries(many).vectors
        )
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_that_differs_from_torch_is_refused(
    bert: Path, tmp_path: Path, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = LibraryEncoder.__call__
    monkeypatch.setattr(LibraryEncoder, "__call__", lambda *a, **k: truth(*a, **k) * 1.01)
    with pytest.raises(ModelError, match="differs from torch by"):
        embedder(bert, tmp_path, backend=backend).embed_queries(QUERIES)
    assert not list(tmp_path.glob(f"{backend}-*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "bfloat16"}, "does not run in bfloat16"),
        ({"device": "cuda"}, "runs on the processor, not on 'cuda'"),
        ({"compile": True}, "is not compiled by torch"),
    ],
)
def test_what_a_graph_cannot_do_is_refused_at_once(
    bert: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        embedder(bert, tmp_path, backend="onnx", **options)


def test_positions_that_depend_on_the_text_are_refused(make_model: Make, tmp_path: Path) -> None:
    folder = make_model("jina_embeddings_v3")
    for spec in ("dynamic_ntk:2", "self_extend:2:64"):
        with pytest.raises(ConfigurationError, match="depend on the text"):
            embedder(folder, tmp_path, backend="onnx", positions=spec)


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_of_another_temperature_is_refused(bert: Path, tmp_path: Path, backend: Any) -> None:
    graph = embedder(bert, tmp_path, backend=backend, late_temperature=0.8)
    document = from_text(TEXT, "d")
    with pytest.raises(ConfigurationError, match=r"not 0\.8"):
        graph.embed_documents([chunk(document, graph.encode(document.text), ChunkConfig())])


def test_a_missing_package_is_named_with_its_extra(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(exported._PACKAGES, "onnx", ("no_such_runtime",))
    with pytest.raises(MissingDependencyError, match="no_such_runtime") as caught:
        embedder(bert, tmp_path, backend="onnx")  # before there is any document that could be blamed
    assert "longleaf[onnx]" in str(caught.value.remedy)


def test_a_model_with_a_head_is_refused(make_model: Make, tmp_path: Path) -> None:
    folder = make_model("bert")
    add_dense(folder, 16)
    with pytest.raises(ConfigurationError, match="modules after pooling"):
        sentence_transformer.build(sentence_transformer.Config(model=str(folder), backend="onnx"))
