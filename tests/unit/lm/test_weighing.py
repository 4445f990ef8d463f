"""A request's wish to move attention becomes biases or shares, or a reason why it cannot."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_ordering import HITS, QUESTION, arranged, calibration

from api.advice import ModelAdvice
from pipeline.answer_config import AnswerConfig
from pipeline.errors import ConfigurationError, ModelError
from pipeline.lm import calibration as stored
from pipeline.lm.signals import shares
from pipeline.progress import Progress
from pipeline.seams import Capabilities
from pipeline.types import Query
from pipeline.weighing import SHARPNESS, weighed


@pytest.fixture
def advice(tmp_path):
    return ModelAdvice(tmp_path)


def moved(model, reweigh, advice, order="document", **config):
    run = Progress(Query(QUESTION), lambda: False)
    made = arranged(model, order, advice)
    return made, weighed(made, run, AnswerConfig(reweigh=reweigh, **config), model, advice)


def test_the_retrievers_scores_become_shares_of_the_passages_where_they_stand(tiny, advice):
    made, changed = moved(tiny(), "score", advice, order="reverse")
    scores = {hit.chunk_id: hit.score for hit in HITS}
    after = changed.ordering.after
    assert after == made.ordering.after == ("p3", "p2", "p1", "p0")
    expected = shares(np.array([scores[name] for name in after], np.float32), SHARPNESS)
    np.testing.assert_allclose(changed.moved.shares, expected, atol=1e-5)
    np.testing.assert_allclose(list(changed.ordering.shares.values()), expected, atol=1e-5)
    content = changed.prompt.messages[1].content
    for spot, name in zip(changed.moved.places, after, strict=True):
        [text] = [hit.text for hit in HITS if hit.chunk_id == name]
        assert content[spot.start : spot.end] == text
    assert changed.ordering.readings == 0
    assert changed.degraded == ()


@pytest.mark.parametrize("reweigh", ["attention_sorting", "found_in_the_middle"])
def test_scores_by_attention_cost_a_reading_unless_the_order_has_them(tiny, advice, tmp_path, reweigh):
    stored.write(calibration(tiny()), tmp_path)
    made, changed = moved(tiny(), reweigh, advice)
    assert made.ordering.readings == 0
    assert changed.ordering.readings == 1
    assert changed.ordering.seconds > 0
    assert changed.ordering.after == made.ordering.after  # looked at, not moved
    ranked = advice.reranker(reweigh, tiny()).rerank(QUESTION, HITS)
    best = max(changed.ordering.shares, key=changed.ordering.shares.__getitem__)
    assert best == ranked[0].chunk_id
    _, both = moved(tiny(), reweigh, advice, order=reweigh)
    assert both.ordering.readings == 1
    _, by_retriever = moved(tiny(), "score", advice, order=reweigh)
    assert max(by_retriever.ordering.shares, key=by_retriever.ordering.shares.__getitem__) == "p0"


def test_off_changes_nothing_and_one_passage_has_all_attention_anyhow(tiny, advice):
    made, same = moved(tiny(), "off", advice)
    assert same is made
    run = Progress(Query(QUESTION), lambda: False)
    one = arranged(tiny(), "score", advice, HITS[:1])
    assert weighed(one, run, AnswerConfig(reweigh="score"), tiny(), advice) is one


def test_a_bias_follows_the_searchs_own_scores_not_the_sentences(tiny, advice):
    """Sentences order the passages; what the search gave them raises or lowers attention."""
    model, run = tiny(), Progress(Query(QUESTION), lambda: False)
    searched = {"p0": 0.2, "p1": 0.6, "p2": 0.4, "p3": 0.4}
    hits = [replace(hit, scores={"search": searched[hit.chunk_id]}) for hit in HITS]
    made = arranged(model, "reverse", advice, hits)
    config = AnswerConfig(reweigh="bias", attention_bias=2.0, attention_raise=0.25)
    changed = weighed(made, run, config, model, advice)
    expected = {"p0": -0.15, "p1": 0.65, "p2": 0.25, "p3": 0.25}
    assert changed.ordering.biases == pytest.approx(expected)
    assert changed.ordering.after == made.ordering.after == ("p3", "p2", "p1", "p0")
    content = changed.prompt.messages[1].content
    for spot, name, bias in zip(
        changed.moved.places, changed.ordering.after, changed.moved.biases, strict=True
    ):
        [text] = [hit.text for hit in hits if hit.chunk_id == name]
        assert content[spot.start : spot.end] == text
        assert bias == pytest.approx(expected[name])
    alone = weighed(arranged(model, "score", advice, hits[:1]), run, config, model, advice)
    assert alone.moved.biases == (0.25,)
    plain = weighed(arranged(model, "score", advice), run, config, model, advice)
    by_score = [plain.ordering.biases[hit.chunk_id] for hit in HITS]
    assert by_score == sorted(by_score, reverse=True)  # hits from elsewhere have one score alone


def test_auto_biases_where_the_calibration_found_that_it_helps_and_complains_of_nothing(tiny, tmp_path):
    model = tiny()

    def auto(**config):
        return moved(model, "auto", ModelAdvice(tmp_path), **config)

    made, unknown = auto()
    assert unknown is made
    stored.write(calibration(model), tmp_path)
    made, useless = auto()
    assert useless is made
    stored.write(calibration(model, bias_pays=True), tmp_path)
    made, changed = auto()
    assert set(changed.ordering.biases) == set(made.ordering.after)
    assert changed.moved is not None
    for config in ({"context_strength": 1.0}, {"long_tokens": 9}):
        made, same = auto(**config)
        assert same is made
    _, same = moved(Deaf(model), "auto", ModelAdvice(tmp_path))
    assert same.moved is None
    assert same.degraded == ()


def test_auto_says_why_a_calibration_is_not_used_once(tiny, tmp_path):
    model = tiny()
    stored.write(calibration(model, bias_pays=True, revision="0" * 64), tmp_path)
    (tmp_path / f"{'0' * 16}.json").rename(tmp_path / f"{model.revision[:16]}.json")
    for order in ("document", "auto"):
        _, refused = moved(model, "auto", ModelAdvice(tmp_path), order=order)
        assert refused.moved is None
        assert sum("calibration of the language model is not used" in each for each in refused.degraded) == 1


class Deaf:
    """A model that only writes."""

    def __init__(self, inner):
        self.inner = inner
        self.capabilities = Capabilities()

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_what_stands_in_the_way_is_said(tiny, advice):
    model = tiny()
    for config, reason in (({"context_strength": 1.0}, "context-aware"), ({"long_tokens": 9}, "more than")):
        made, changed = moved(model, "score", advice, **config)
        assert changed.moved is None
        assert any("not moved" in said and reason in said for said in changed.degraded)
        assert changed.ordering == made.ordering
    _, changed = moved(Deaf(model), "score", advice)
    assert "does not let its attention be changed" in changed.degraded[-1]

    _, changed = moved(model, "found_in_the_middle", None)
    assert "nothing here lets the model look" in changed.degraded[-1]
    assert changed.moved is None

    def refused(*_):
        raise ModelError("no look", remedy="none")

    _, changed = moved(model, "found_in_the_middle", SimpleNamespace(reranker=refused))
    assert "no look" in changed.degraded[-1]
    assert changed.moved is None


def test_a_wish_that_does_not_exist_is_refused():
    with pytest.raises(ConfigurationError, match="reweigh is 'loud'"):
        AnswerConfig(reweigh="loud")
    for wrong in ({"attention_bias": -1.0}, {"attention_bias": float("nan")}, {"attention_raise": 4.5}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            AnswerConfig(**wrong)
