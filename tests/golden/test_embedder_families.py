"""Every family of embedding models: as the library runs it, and in windows that it was not trained for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import DECODERS, ROTARY_ENCODERS, VOCABULARY, write_json

from embedders import late_chunking, sentence_transformer
from pipeline.chunk import ChunkConfig, chunk
from pipeline.encoder.bert import PackedBert, runs_here
from pipeline.encoder.folder import read_folder
from pipeline.encoder.library import LibraryEncoder
from pipeline.encoder.text_encoder import batches
from pipeline.errors import ConfigurationError, EmbeddingError, ModelError
from pipeline.positions import choose
from pipeline.types import ChunkedDocument, Document

Make = Callable[..., Path]
TEXTS = ["the tenant pays rent", "a duck swims on a lake.", "x", "the duck, the rent, " * 9]
SIZES = ChunkConfig(passage_tokens=24, unit_tokens=10, unit_min_tokens=3)
LAST = {"pooling_mode": "lasttoken"}


def own(path: Path, **options: object) -> sentence_transformer.SentenceTransformerEmbedder:
    config = sentence_transformer.Config(model=str(path), dtype="float32", **options)
    return sentence_transformer.build(config)


def late(path: Path, **options: object) -> late_chunking.LateChunkingEmbedder:
    weights = {"passage_late": 1, "unit_late": 1, **options}
    return late_chunking.build(late_chunking.Config(model=str(path), dtype="float32", **weights))


def library(path: Path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    model.max_seq_length = 512
    return model


def document(embedder, words: int) -> ChunkedDocument:
    rng = np.random.default_rng(words)
    text = " ".join(rng.choice(["the", "tenant", "pays", "rent", "duck", "lake."], words))
    return chunk(Document("Lease", text), embedder.encode(text), SIZES)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", *ROTARY_ENCODERS])
def test_encoders_equal_the_library(make_model: Make, model_type: str) -> None:
    path = make_model(model_type, positions=128, prompts={"query": "query: "})
    ours = own(path).embed_queries(TEXTS).vectors
    np.testing.assert_allclose(ours, library(path).encode_query(TEXTS, normalize_embeddings=True), atol=5e-6)


@pytest.mark.parametrize("model_type", DECODERS)
def test_decoders_are_pooled_at_their_last_token(make_model: Make, model_type: str) -> None:
    """As Qwen3-Embedding and E5-Mistral are; an instruction before the query, an end token after it."""
    prompts = {"query": "query : ", "document": ""}
    path = make_model(model_type, positions=128, pooling=LAST, prompts=prompts)
    embedder = own(path)
    assert embedder.fingerprint.pooling == "lasttoken"
    theirs = library(path).encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embedder.embed_queries(TEXTS).vectors, theirs, atol=5e-6)
    with pytest.raises(ConfigurationError, match=r"'lasttoken'.*sentence_transformer"):
        late(path)
    assert late(path, allow_pooling_mismatch=True).fingerprint.pooling == "lasttoken"


def test_an_end_token_that_only_the_configuration_asks_for(make_model: Make) -> None:
    path = make_model("mistral", positions=128, pooling=LAST)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    write_json(path / "tokenizer.json", tokenizer | {"post_processor": None})
    assert own(path).encoder.tokenizer.suffix == []
    declared = json.loads((path / "tokenizer_config.json").read_text())
    write_json(path / "tokenizer_config.json", declared | {"add_eos_token": True, "eos_token": "[SEP]"})
    assert own(path).encoder.tokenizer.suffix == [VOCABULARY.index("[SEP]")]
    assert own(path).encoder.tokenizer.prefix == []


@pytest.mark.parametrize("model_type", ROTARY_ENCODERS)
@pytest.mark.parametrize("spec", ["ntk:4", "dynamic_ntk:4", "self_extend:5:32"])
def test_one_extended_window_is_the_plain_definition(make_model: Make, model_type: str, spec: str) -> None:
    """Encode all with transformers, take means of token vectors."""
    import torch

    path = make_model(model_type, positions=128)
    embedder = late(path, positions=spec)
    doc = document(embedder, 300)
    assert 200 < len(doc.encoding) < embedder.fingerprint.window_tokens
    (found,) = embedder.embed_documents([doc])
    assert found.windowing == f"single window (positions {spec})"
    assert found.fingerprint.positions == spec
    folder = read_folder(path)
    reference = LibraryEncoder(folder, "float32", "cpu", choose(spec, "rotary", 128))
    ids = torch.tensor([[2, *doc.encoding.ids.tolist(), 3]])
    with torch.no_grad():
        vectors = reference.network(input_ids=ids).last_hidden_state[0, 1:-1].numpy()
    expected = np.stack([vectors[u.token_start : u.token_end].mean(0) for u in doc.units])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found.units, expected, atol=1e-5)


@pytest.mark.parametrize("spec", ["native", "pi:4", "ntk:4", "dynamic_ntk:4", "yarn:4", "by_parts:4"])
def test_our_rotary_bert_equals_transformers(make_model: Make, spec: str) -> None:
    folder = read_folder(make_model("jina_embeddings_v3", positions=128))
    choice = choose(spec, "rotary", 128)
    assert runs_here(folder, choice)
    rng = np.random.default_rng(0)
    lengths = [100] if spec == "native" else [5, 5, 200, 300]
    ids = rng.integers(5, len(VOCABULARY), sum(lengths))
    ours = PackedBert(folder, "float32", "cpu", choice)
    theirs = LibraryEncoder(folder, "float32", "cpu", choice)
    for temperature in (1.0, 0.7):
        a, b = (model(ids, lengths, temperature) for model in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=3e-5)
    assert np.abs(ours(ids, lengths) - a).max() > 1e-2


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet"])
@pytest.mark.parametrize("spec", ["pi:2.5", "grouped:3", "recurrent:3"])
def test_absolute_positions_are_read_in_other_ways(make_model: Make, model_type: str, spec: str) -> None:
    """Up to the trained length a factor of 1 changes nothing; beyond, both ways to run a model agree."""
    folder = read_folder(make_model(model_type, positions=64))
    ids, lengths = np.random.default_rng(0).integers(5, len(VOCABULARY), 190), [40, 150]
    choice = choose(spec, "absolute", 64)
    stretched = LibraryEncoder(folder, "float32", "cpu", choice)(ids, lengths)
    assert np.isfinite(stretched).all()
    if runs_here(folder, choice):
        np.testing.assert_allclose(
            PackedBert(folder, "float32", "cpu", choice)(ids, lengths), stretched, atol=3e-5
        )
    name = spec.split(":", maxsplit=1)[0]
    same = choose(f"{name}:1", "absolute", 64)
    native = LibraryEncoder(folder, "float32", "cpu", choose("native", "absolute", 64))
    short = ids[:60]
    np.testing.assert_allclose(
        LibraryEncoder(folder, "float32", "cpu", same)(short, [60]), native(short, [60]), atol=1e-6
    )
    if name == "recurrent":  # position 64 is position 0 again: turning a sequence turns its vectors
        turned = np.concatenate([ids[64:128], ids[:64]])
        a = LibraryEncoder(folder, "float32", "cpu", choice)(ids[:128], [128])
        b = LibraryEncoder(folder, "float32", "cpu", choice)(turned, [128])
        if model_type != "mpnet":  # which also knows distances
            np.testing.assert_allclose(np.concatenate([a[64:], a[:64]]), b, atol=1e-5)


def test_vectors_are_cut_to_the_width_asked_for(make_model: Make) -> None:
    path = make_model(positions=128)
    full, cut = (own(path, dim=dim).embed_queries(TEXTS).vectors for dim in (None, 12))
    assert own(path, dim=12).fingerprint.dim == cut.shape[1] == 12
    np.testing.assert_allclose(cut, full[:, :12] / np.linalg.norm(full[:, :12], axis=1)[:, None], atol=1e-6)
    with pytest.raises(ConfigurationError, match="dim=33 exceeds the 32"):
        own(path, dim=33)


def test_windows_that_a_method_cannot_reach_are_refused(make_model: Make) -> None:
    path = make_model("nomic_bert", positions=128)
    for options, told in (
        ({"window_tokens": 300, "positions": "yarn:2"}, "exceeds the 256 positions"),
        ({"positions": "yarn:0.9"}, "below 1"),
        ({"positions": "grouped:2"}, "needs absolute positions"),
        ({"window_tokens": 129}, "exceeds the 128"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            late(path, **options)


def test_compiling_is_for_models_of_the_library(make_model: Make) -> None:
    with pytest.raises(ConfigurationError, match="packed batches"):
        own(make_model("bert"), compile=True)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_vectors(make_model: Make) -> None:
    """Takes minutes on two busy cores."""
    import torch._dynamo.utils as dynamo

    path = make_model("nomic_bert", positions=128)
    compiled = own(path, compile=True).embed_queries(TEXTS).vectors
    assert dynamo.counters["stats"]["unique_graphs"] >= 1
    np.testing.assert_allclose(compiled, own(path).embed_queries(TEXTS).vectors, atol=1e-5)


def test_a_model_without_positions_to_stretch_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "t5", "d_model": 32, "n_positions": 512}
    write_json(tmp_path / "config.json", config)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="'t5' has neither"):
        own(tmp_path, positions="pi:2")


def test_code_of_a_model_is_never_run(make_model: Make) -> None:
    path = make_model()
    config = json.loads((path / "config.json").read_text())
    auto = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    write_json(path / "config.json", config | {"model_type": "mine", "auto_map": auto})
    (path / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="never run"):
        own(path).embed_queries(["rent"])


def test_a_tokenizer_without_offsets_is_refused(make_model: Make) -> None:
    path = make_model()
    write_json(path / "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"})
    (path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer that gives offsets"):
        own(path).encode("rent")


@pytest.mark.parametrize("build", [own, late])
def test_one_word_of_a_hundred_thousand_characters(make_model: Make, build) -> None:
    embedder = build(make_model("nomic_bert", positions=128), window_tokens=80)
    text = "the duck swims. " + "a" * 100_000 + " on a lake."
    doc = chunk(Document("t", text), embedder.encode(text), SIZES)
    (found,) = embedder.embed_documents([doc])
    np.testing.assert_allclose(np.linalg.norm(found.units, axis=1), 1, atol=1e-5)
    assert "".join(u.text for u in doc.units).replace(" ", "") == text.replace(" ", "")


def test_chunks_without_tokens_have_the_vector_of_what_is_before_them(make_model: Make) -> None:
    """A decoder has no special tokens to stand in for a chunk whose characters the tokenizer drops."""
    from dataclasses import replace

    path = make_model("qwen3", positions=128, pooling=LAST)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    write_json(path / "tokenizer.json", tokenizer | {"post_processor": None})
    embedder = own(path)
    doc = document(embedder, 60)
    second = doc.units[1]
    hollow = replace(second, token_start=second.token_end)
    emptied = replace(doc, units=(doc.units[0], hollow, *doc.units[2:]))
    (found,) = embedder.embed_documents([emptied])
    assert np.isfinite(found.units).all()
    last = doc.encoding.ids[second.token_end - 1 : second.token_end]
    alone = embedder.encoder.pooled([last])[0]
    np.testing.assert_allclose(found.units[1], alone / np.linalg.norm(alone), atol=1e-6)


def test_numbers_that_are_not_finite_are_refused_naming_the_chunk(make_model: Make) -> None:
    from safetensors.torch import load_file, save_file

    path = make_model("gte", positions=128)
    weights = load_file(path / "model.safetensors")
    (name,) = [n for n in weights if n.endswith("word_embeddings.weight")]
    weights[name][VOCABULARY.index("rent")] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    embedder = own(path)
    text = "the duck swims on a lake. the tenant pays rent."
    doc = chunk(Document("Lease", text), embedder.encode(text), SIZES)
    with pytest.raises(EmbeddingError, match="of 'Lease'"):
        embedder.embed_documents([doc])


def test_padding_counts_among_the_tokens_in_flight() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 200).tolist()
    for padded in (False, True):
        plan = list(batches(lengths, 128, padded=padded))
        assert sorted(i for batch in plan for i in batch) == list(range(200))
        for batch in plan:
            sizes = [lengths[i] for i in batch]
            held = max(sizes) * len(sizes) if padded else sum(sizes)
            assert held <= 128 or len(batch) == 1
    assert list(batches([500, 3], 128, padded=True)) == [[1], [0]]
