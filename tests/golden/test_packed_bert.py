"""Our BERT equals transformers' BERT, and our embedder equals SentenceTransformer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import VOCABULARY, add_dense

from embedders.sentence_transformer import Config, SentenceTransformerEmbedder, build
from pipeline.encoder.bert import PackedBert, faster_dtype, runs_here
from pipeline.encoder.folder import read_folder
from pipeline.positions import Choice, Native

NATIVE = Choice(Native(), 512)
LENGTHS = [3, 3, 3, 17, 1, 120, 120]
TEXTS = [
    "the tenant pays rent",
    "a duck swims on a lake.",
    "x",
    "the duck, the rent, " * 9,
    "Ünknown 東京 🎉",
]
Make = Callable[..., Path]


def reference(folder: Path, sequences: list[np.ndarray]) -> list[np.ndarray]:
    """Each sequence alone through transformers, eager attention."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return [model(input_ids=torch.from_numpy(s)[None]).last_hidden_state[0].numpy() for s in sequences]


def build_st(folder: Path) -> object:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = 512
    return model


def embedder(folder: Path, **options: object) -> SentenceTransformerEmbedder:
    return build(Config(model=str(folder), dtype="float32", **options))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta"])
def test_packed_equals_transformers(make_model: Make, model_type: str) -> None:
    path = make_model(model_type)
    folder = read_folder(path)
    assert runs_here(folder, NATIVE)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, len(VOCABULARY), n) for n in LENGTHS]
    ours = PackedBert(folder, "float32", "cpu", NATIVE)(np.concatenate(sequences), LENGTHS)
    theirs = np.concatenate(reference(path, sequences))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_bfloat16_points_the_same_way(bert: Path) -> None:
    exact = embedder(bert).embed_queries(TEXTS).vectors
    rough = build(Config(model=str(bert), dtype="bfloat16")).embed_queries(TEXTS).vectors
    assert ((exact * rough).sum(1) > 0.999).all()
    assert not np.array_equal(exact, rough)


def test_automatic_dtype_is_one_of_the_two() -> None:
    assert faster_dtype("cpu") in ("float32", "bfloat16")


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_mean_tokens": True},
        {"pooling_mode_cls_token": True},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": "max"},
        {"pooling_mode": "mean_sqrt_len_tokens"},
        {"pooling_mode": "mean", "include_prompt": False},
    ],
)
def test_queries_equal_the_library(make_model: Make, pooling: dict[str, object]) -> None:
    path = make_model(pooling=pooling, prompts={"query": "query: ", "document": "passage: "})
    ours = embedder(path).embed_queries(TEXTS).vectors
    theirs = build_st(path).encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_a_dense_head_runs_through_the_library(make_model: Make) -> None:
    path = make_model()
    add_dense(path, 12)
    assert not runs_here(read_folder(path), NATIVE)
    ours = embedder(path)
    assert ours.fingerprint.dim == 12
    theirs = build_st(path).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(ours.embed_queries(TEXTS).vectors, theirs, atol=2e-6)


def test_another_architecture_runs_through_the_library(make_model: Make) -> None:
    path = make_model("mpnet")
    assert not runs_here(read_folder(path), NATIVE)
    theirs = build_st(path).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embedder(path).embed_queries(TEXTS).vectors, theirs, atol=2e-6)


def test_lower_casing_that_the_model_asks_for(make_model: Make) -> None:
    ours = embedder(make_model(lower_case=True))
    upper, lower = ours.embed_queries(["The TENANT pays", "the tenant pays"]).vectors
    np.testing.assert_array_equal(upper, lower)


def test_a_query_over_the_window_is_the_mean_of_its_windows(bert: Path) -> None:
    ours = embedder(bert, window_tokens=34)
    ids = ours.encoder.tokenizer.ids_after_prompt("", "the duck swims " * 25)
    assert len(ids) == 75
    parts = [ids[:25], ids[25:50], ids[50:]]
    expected = np.mean([ours.encoder.pooled([part])[0] for part in parts], axis=0)
    found = ours.embed_queries(["the duck swims " * 25]).vectors[0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_batches_do_not_change_vectors(bert: Path) -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(["the", "tenant", "duck", "lake"], n)) for n in rng.integers(1, 60, 40)]
    one, many = (embedder(bert, batch_tokens=n).embed_queries(texts).vectors for n in (16, 4096))
    np.testing.assert_allclose(one, many, atol=1e-6)


@pytest.mark.model
def test_the_default_model_equals_the_library() -> None:
    ours = build(Config(dtype="float32"))
    theirs = build_st(ours.encoder.folder.path)
    texts = [
        "How long is the confidentiality period?",
        "x",
        "Grüße aus 東京 🎉",
        "The tenant shall pay. " * 40,
    ]
    expected = theirs.encode(texts, normalize_embeddings=True)
    cosines = (ours.embed_queries(texts).vectors * expected).sum(1)
    assert (cosines > 0.9999).all()
