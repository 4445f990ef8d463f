"""Every reranker keeps to the seam, and scores as its paper or library says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import plugins
from pipeline.errors import ConfigurationError, InvalidRequestError, ModelError, WorkCancelledError
from pipeline.seams import Reranker
from pipeline.types import Hit

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "lm"))
from tiny_networks import make_network, make_tokenizer

NAMES = plugins.names("rerankers")
TEXTS = (
    "The lease ends on the last day of March.",
    "The tenant returns the keys.",
    "Wer die Frist versäumt, verliert das Recht.",
    "The court opens at nine.",
)
HITS = [Hit(str(n), "d", 1, "", text, 0, len(text), 4.0 - n, {"dense": 0.5}) for n, text in enumerate(TEXTS)]
QUESTION = "When does the lease end?"


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    from pipeline.lm.model import load

    folder = tmp_path_factory.mktemp("lm") / "tiny"
    make_network("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return load(str(folder), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A tiny cross-encoder with 64 positions, random weights."""
    import torch
    from tiny_models import VOCABULARY, write_tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, num_labels=1, initializer_range=0.4,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def built(language_model, encoder_folder):
    """A function from a plugin's name to the reranker of its ``TINY``, with the tiny model."""

    def make(name: str, **changes) -> Reranker:
        module = sys.modules.get(f"rerankers.{name}") or __import__(f"rerankers.{name}", fromlist=["TINY"])
        own = {"language_model": language_model, "model": str(encoder_folder)}
        known = {key: value for key, value in own.items() if key in type(module.TINY).model_fields}
        return module.build(module.TINY.model_copy(update={**known, **changes}))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_the_same_hits_come_back_best_first_with_their_evidence(built, name):
    reranker = built(name)
    assert isinstance(reranker, Reranker)
    ranked = reranker.rerank(QUESTION, HITS)
    assert sorted(hit.chunk_id for hit in ranked) == [hit.chunk_id for hit in HITS]
    assert [hit.score for hit in ranked] == sorted((hit.score for hit in ranked), reverse=True)
    by_id = {hit.chunk_id: hit for hit in HITS}
    for hit in ranked:
        assert hit.text == by_id[hit.chunk_id].text
        assert hit.scores["dense"] == 0.5
        assert np.isfinite(hit.scores[name])
        assert hit.scores.get("retrieved", hit.score) == by_id[hit.chunk_id].score
    assert built(name).rerank(QUESTION, HITS) == ranked
    assert reranker.rerank(QUESTION, []) == []
    [alone] = reranker.rerank(QUESTION, HITS[:1])
    assert alone.chunk_id == HITS[0].chunk_id


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"identity"}))
def test_cancelling_ends_the_work(built, name):
    with pytest.raises(WorkCancelledError):
        built(name).rerank(QUESTION, HITS, lambda: True)


@pytest.mark.parametrize("name", ["attention_sorting", "found_in_the_middle"])
def test_an_empty_passage_is_named(built, name):
    with pytest.raises(InvalidRequestError, match="'empty'"):
        built(name).rerank(QUESTION, [*HITS, Hit("empty", "d", 1, "", " \n", 0, 2, 0.0)])


@pytest.mark.parametrize("name", ["attention_sorting", "found_in_the_middle"])
def test_a_family_without_support_is_refused_when_chosen(name, tmp_path):
    make_network("gpt_neox").save_pretrained(tmp_path / "strange")
    make_tokenizer().save_pretrained(tmp_path / "strange")
    with pytest.raises(ModelError, match=r"gpt_neox.*llama"):
        plugins.load("rerankers", name, model=str(tmp_path / "strange"), cache=tmp_path)


@pytest.mark.parametrize("name", ["attention_sorting", "found_in_the_middle"])
def test_heads_the_model_does_not_have_are_named(built, name):
    with pytest.raises(ConfigurationError, match=r"\(7, 0\)"):
        built(name, heads=((7, 0),)).rerank(QUESTION, HITS)


def whole_matrices(language_model, question, hits):
    """Attention matrices (layers, H, L, L) by transformers' eager attention, the spans, and the question."""
    import torch

    from pipeline.lm.looking import watched

    prompt, asked = watched(language_model.chat, question, hits)
    network = make_network("llama")
    network.set_attn_implementation("eager")
    with torch.inference_mode():
        found = network(input_ids=torch.tensor([prompt.ids]), output_attentions=True).attentions
    return torch.cat(found).numpy(), prompt.spans, range(prompt.tokens.start, prompt.tokens.start + asked)


def sums(matrices, rows, spans):
    return np.array([matrices[:, :, rows, start:end].sum(-1).mean(-1).sum() for start, end in spans])


def test_attention_sorting_as_published_against_whole_matrices(built, language_model):
    matrices, spans, _ = whole_matrices(language_model, QUESTION, HITS)
    expected = sums(matrices, [-1], spans)
    ranked = built("attention_sorting", tokens="last", rounds=1).rerank(QUESTION, HITS)
    found = {hit.chunk_id: hit.scores["attention_sorting"] for hit in ranked}
    assert [found[str(n)] for n in range(4)] == pytest.approx(list(expected), rel=1e-3)
    assert [hit.chunk_id for hit in ranked] == [str(n) for n in np.argsort(-expected)]


def test_sorting_is_repeated_until_the_order_stays(built, language_model):
    reading = list(range(4))
    for _ in range(3):
        matrices, spans, _ = whole_matrices(language_model, QUESTION, [HITS[n] for n in reading])
        scores = dict(zip(reading, sums(matrices, [-1], spans), strict=True))
        ranked = sorted(reading, key=lambda n: scores[n])
        if ranked == reading:
            break
        reading = ranked
    hits = built("attention_sorting", tokens="last", rounds=3).rerank(QUESTION, HITS)
    assert [hit.chunk_id for hit in hits] == [str(n) for n in sorted(scores, key=lambda n: -scores[n])]
    assert 1 <= hits[0].scores["attention_sorting.rounds"] <= 3


def test_content_free_calibration_against_whole_matrices(built, language_model):
    matrices, spans, asked = whole_matrices(language_model, QUESTION, HITS)
    free, free_spans, free_asked = whole_matrices(language_model, "N/A", HITS)
    expected = sums(matrices, list(asked), spans) - sums(free, list(free_asked), free_spans)
    ranked = built("found_in_the_middle").rerank(QUESTION, HITS)
    found = {hit.chunk_id: hit for hit in ranked}
    scores = [found[str(n)].scores for n in range(4)]
    assert [s["found_in_the_middle"] for s in scores] == pytest.approx(list(expected), abs=1e-3)
    parts = [s["found_in_the_middle.question"] - s["found_in_the_middle.content_free"] for s in scores]
    assert parts == pytest.approx(list(expected), abs=1e-3)


def test_found_in_the_middle_as_published_against_whole_matrices(built, language_model):
    from dataclasses import replace

    from pipeline.lm.ranking import DUMMY

    count = language_model.count_tokens
    matrices, spans, _ = whole_matrices(language_model, QUESTION, HITS)
    expected = sums(matrices, [-1], spans) / [count(text) for text in TEXTS]
    for n, hit in enumerate(HITS):
        shown = [*HITS[:n], replace(hit, text=DUMMY), *HITS[n + 1 :]]
        dummy, dummy_spans, _ = whole_matrices(language_model, QUESTION, shown)
        expected[n] -= sums(dummy, [-1], dummy_spans)[n] / count(DUMMY)
    ranked = built("found_in_the_middle", less="dummy", weight=1.0).rerank(QUESTION, HITS)
    assert [hit.chunk_id for hit in ranked] == [str(n) for n in np.argsort(-expected)]
    found = {hit.chunk_id: hit.scores["found_in_the_middle"] for hit in ranked}
    assert [found[str(n)] for n in range(4)] == pytest.approx(list(expected), abs=1e-4)


@pytest.mark.parametrize("name", ["attention_sorting", "found_in_the_middle", "cross_encoder"])
def test_with_weight_zero_the_retrievers_order_stays(built, name):
    ranked = built(name, weight=0.0).rerank(QUESTION, HITS)
    assert [hit.chunk_id for hit in ranked] == ["0", "1", "2", "3"]


def test_cross_encoder_gives_the_librarys_scores(built, encoder_folder):
    from sentence_transformers import CrossEncoder

    expected = CrossEncoder(str(encoder_folder), device="cpu").predict([(QUESTION, text) for text in TEXTS])
    found = {hit.chunk_id: hit for hit in built("cross_encoder").rerank(QUESTION, HITS)}
    assert [found[str(n)].scores["cross_encoder"] for n in range(4)] == pytest.approx(
        expected.tolist(), abs=1e-5
    )


def test_cross_encoder_runs_through_onednn_where_that_pays(encoder_folder, monkeypatch):
    from torch import nn

    from pipeline import onednn

    monkeypatch.setattr(onednn, "pays", lambda: True)
    built = plugins.load("rerankers", "cross_encoder", model=str(encoder_folder), device="cpu")
    layers = [layer for layer in built._encoder.modules() if isinstance(layer, nn.Linear)]
    assert layers and all(type(layer) is onednn.OneDnnLinear for layer in layers)


def test_a_device_that_is_not_there_is_refused(encoder_folder):
    with pytest.raises(ConfigurationError, match="'tpu' cannot be used"):
        plugins.load("rerankers", "cross_encoder", model=str(encoder_folder), device="tpu")


def test_a_long_passage_is_read_to_its_end(built, encoder_folder):
    """The best of overlapping windows, of which the library alone would read the first."""
    from sentence_transformers import CrossEncoder

    text = " ".join("abcdefghijklmnopqrstuvwxyz" * 4)  # 104 tokens
    encoder = CrossEncoder(str(encoder_folder), device="cpu")
    room = 64 - len(encoder.tokenizer("the duck", "")["input_ids"])
    [hit] = built("cross_encoder").rerank("the duck", [Hit("l", "d", 1, "", text, 0, len(text), 1.0)])
    windows = [text[2 * at : 2 * (at + room)].strip() for at in (0, room // 2, 104 - room)]
    expected = encoder.predict([("the duck", w) for w in windows])
    assert hit.scores["cross_encoder.windows"] == 3
    assert hit.scores["cross_encoder"] == pytest.approx(float(expected.max()), abs=1e-5)
    with pytest.raises(InvalidRequestError, match="64 tokens"):
        built("cross_encoder").rerank("duck " * 60, HITS)


def test_a_classifier_of_several_classes_is_refused(encoder_folder, tmp_path):
    import json
    import shutil

    import torch
    from transformers import BertConfig, BertForSequenceClassification

    shutil.copytree(encoder_folder, tmp_path / "three")
    values = json.loads((tmp_path / "three" / "config.json").read_text())
    torch.manual_seed(0)
    config = BertConfig(
        **{k: v for k, v in values.items() if k not in ("id2label", "label2id")}, num_labels=3
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "three")
    with pytest.raises(ModelError, match="3 scores"):
        plugins.load("rerankers", "cross_encoder", model=str(tmp_path / "three"))
