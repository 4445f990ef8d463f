"""A request's wish to move attention becomes shares, or a reason why it cannot."""

from __future__ import annotations

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
