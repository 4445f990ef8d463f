"""What the embedding benchmarks compute is what the product computes."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from api.build import open_longleaf
from api.settings import load_settings
from benchmarks import embedding, rotary_minilm
from benchmarks.embedding_scores import Index, cut
from benchmarks.embedding_sets import Question, Task, hidden
from embedders import centred, hashing, late_chunking
from pipeline.chunk import ChunkConfig
from pipeline.encoder.bert import PackedBert
from pipeline.encoder.folder import read_folder
from pipeline.fuse import Fusion
from pipeline.ingest import Source
from pipeline.positions import Choice, Native
from pipeline.retrieve import RetrievalConfig, Retriever
from pipeline.types import Query

WORDS = [
    "tenant",
    "pays",
    "rent",
    "duck",
    "swims",
    "lake",
    "roof",
    "owner",
    "court",
    "law",
    "glass",
    "iron",
    "river",
    "stone",
    "bridge",
]
SIZES = ChunkConfig(48, 16, 4)


def texts(count: int) -> dict[str, str]:
    rng = np.random.default_rng(3)
    return {
        f"document {i}": "\n\n".join(
            " ".join(" ".join(rng.choice(WORDS, 7)).capitalize() + "." for _ in range(6)) for _ in range(3)
        )
        for i in range(count)
    }


@pytest.mark.parametrize("dense", [1.0, 0.6])
def test_scores_are_those_of_a_search(tmp_path: Path, dense: float) -> None:
    """The benchmark scores everything; a search with limits that hold everything ranks the same."""
    documents = texts(12)
    question = Question("Which tenant pays the owner of the bridge? A duck swims under the stone.", {})
    options = {
        "data": tmp_path, "embedder": {"name": "hashing"}, "indexer": {"name": "exact"},
        "chunking": {"passage_tokens": 48, "unit_tokens": 16, "unit_min_tokens": 4},
    }  # fmt: skip
    index = Index(
        cut(Task("t", documents, [question]), hashing.build(hashing.Config()), words=True, chunking=SIZES),
        hashing.build(hashing.Config()),
    )
    with open_longleaf(load_settings(options)) as longleaf:
        results = longleaf.ingestor.ingest(
            Source(name=n, text=t, document_id=n) for n, t in documents.items()
        )
        assert all(r.status == "created" for r in results)
        config = RetrievalConfig(
            dense_weight=dense, unit_candidates=5000, passage_candidates=5000, regularization=0
        )
        retriever = Retriever(longleaf.embedder, longleaf.indexer, longleaf.ledger, longleaf.analyser, config)
        ranked = retriever.find(Query(question.text, top_k=100)).ranked
    passages, by_document = index.rank(question, config.as_fusion())
    first = {name: index.passage_starts[i] for i, name in enumerate(index.names)}
    theirs = np.full(len(passages), np.nan)
    for r in ranked:
        theirs[first[r.document_id] + r.ordinal] = r.score
    np.testing.assert_allclose(passages, theirs, atol=1e-5)
    assert by_document.max() == passages.max()
    assert np.argmax(passages) == first[ranked[0].document_id] + ranked[0].ordinal


def test_hidden_sentences_are_found_and_told(tmp_path: Path) -> None:
    haystack = " ".join(texts(60).values())
    embedder = hashing.build(hashing.Config())
    passkey, needle = hidden(haystack, embedder.encode, 100, 6)
    assert passkey.documents is needle.documents
    assert [q.relevance for q in passkey.questions] == [{f"candidate-{i}": 1.0} for i in range(6)]
    index = Index(cut(passkey, embedder, words=False), embedder)
    index.prepare(passkey.questions)
    weights = Fusion(dense=1, unit=1, passage=0)
    assert np.mean([index.measure(q, weights)["acc@1"] for q in passkey.questions]) > 0.8
    assert set(index.one_vector(passkey.questions[0], index.document_vectors())) == {"acc@1"}


def test_rows_share_passes_and_equal_the_embedders(tmp_path: Path) -> None:
    from tiny_models import write_model

    model = {"model": str(write_model(tmp_path / "model", positions=64))}
    passes = embedding.Passes(Namespace(device="cpu", dtype="float32", threads=1, rotary=None))
    config = late_chunking.Config(
        passage_late=0.3, unit_late=0.3, dtype="float32", window_tokens=64, overlap_tokens=31, **model
    )
    ours = late_chunking.build(config)
    options = {**model, "window_tokens": 64, "overlap_tokens": 31}
    made = cut(Task("t", texts(30), []), ours, words=False, chunking=SIZES)
    mixed = passes.index(embedding.Row(options, late=0.3, chunking=SIZES), made)
    product = Index(made, ours)
    np.testing.assert_allclose(mixed.units, product.units, atol=1e-5)
    np.testing.assert_allclose(mixed.passages, product.passages, atol=1e-5)
    without = passes.index(embedding.Row(options, late=0.3, directions=2, chunking=SIZES), made)
    wrapped = centred.CentredEmbedder(ours, 2)
    wrapped.learn(made.documents)
    expected = Index(made, wrapped)
    np.testing.assert_allclose(without.units, expected.units, atol=1e-4)
    question = Question("Which tenant pays? A duck swims.", {})
    for a, b in zip(without.rank(question, Fusion()), expected.rank(question, Fusion()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_table_has_a_line_a_measure(tmp_path: Path) -> None:
    rows = {"naive": {"qmsum": {"ndcg@10 dense": [0.5, 0.4, 0.6, 9], "windowing": "x"}}, "late": {}}
    (tmp_path / "r.json").write_text(json.dumps({"rows": rows}))
    assert embedding.table(tmp_path / "r.json").splitlines()[2] == (
        "| qmsum | ndcg@10 dense | 9 | 0.500 [0.400, 0.600] |  |"
    )


def test_the_student_starts_as_the_network_that_is_written(tmp_path: Path) -> None:
    """The training pass equals the product's on the weights it writes, and starts from the teacher's."""
    from tiny_models import write_model

    teacher = write_model(tmp_path / "teacher", positions=512)
    config = json.loads((teacher / "config.json").read_text())
    from safetensors.torch import load_file

    weights = rotary_minilm.student_weights(load_file(teacher / "model.safetensors"), 2)
    rotary_minilm.write_folder(tmp_path / "student", teacher, weights)
    folder = read_folder(tmp_path / "student")
    assert (folder.model_type, folder.position_kind) == ("jina_embeddings_v3", "rotary")
    ids = torch.randint(5, 40, (2, 50), generator=torch.Generator().manual_seed(0))
    halved = {n: v.half().float() for n, v in weights.items()}
    shape = {"heads": 4, "layers": 2, "epsilon": config["layer_norm_eps"]}
    trained = rotary_minilm.forward(halved, ids, **shape).reshape(100, -1).numpy()
    ours = PackedBert(folder, "float32", "cpu", Choice(Native(), 512))(ids.flatten().numpy(), [50, 50])
    np.testing.assert_allclose(trained, ours, atol=2e-5)


def test_distillation_draws_the_student_to_the_teacher(tmp_path: Path) -> None:
    """Token vectors of one batch are nearer to the teacher's after a few steps than before."""
    from safetensors.torch import load_file
    from tiny_models import write_model
    from transformers import AutoModel

    folder = write_model(tmp_path / "teacher", positions=512)
    stream = np.random.default_rng(0).integers(5, 70, 5000).astype(np.int32)
    given = Namespace(device="cpu", learning_rate=2e-2, seconds=600, steps=25, batch_tokens=512, tell=5)
    after, told = rotary_minilm.distil(given, folder, stream, (2, 3))
    assert (told["steps"], len(told["curve"])) == (25, 5)
    before = rotary_minilm.student_weights(load_file(folder / "model.safetensors"), 2)
    ids = torch.from_numpy(stream[:480].astype(np.int64)).view(8, 60)
    epsilon = json.loads((folder / "config.json").read_text())["layer_norm_eps"]
    with torch.no_grad():
        target = AutoModel.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state
        near = [
            torch.cosine_similarity(
                rotary_minilm.forward(w, ids, heads=4, layers=2, epsilon=epsilon), target, dim=-1
            )
            for w in (before, after)
        ]
    assert near[1].mean() > near[0].mean() + 0.005
