"""A request's order becomes a prompt: by score, by attention, by what a calibration found, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from api.advice import ModelAdvice
from pipeline.errors import ConfigurationError, WorkCancelledError
from pipeline.lm import calibration as stored
from pipeline.lm.calibration import Calibration, Fused
from pipeline.lm.signals import Signal
from pipeline.ordering import ordered
from pipeline.seams import Capabilities
from pipeline.types import Hit

TEXTS = (
    "The lease ends in March.",
    "The tenant returns the keys.",
    "The court opens at nine.",
    "Rent is due.",
)
HITS = [Hit(f"p{n}", "d", 1, "", text, 0, len(text), 4.0 - n) for n, text in enumerate(TEXTS)]
QUESTION = "When does the lease end?"
LOOKING = Fused(Signal("question", content_free=True), 1.0)


def calibration(model, **changes) -> Calibration:
    known = Calibration(
        model.name, model.revision, auto="edges", placement="edges",
        attention_sorting=Fused(Signal("question"), 1.0), found_in_the_middle=LOOKING,
    )  # fmt: skip
    return replace(known, **changes)


def arranged(model, order, advice=None, hits=HITS, **changes):
    options = {"budget_tokens": 500, "max_tokens": 20, **changes}
    return ordered(QUESTION, hits, model, order=order, advice=advice, **options)


@pytest.fixture
def advice(tmp_path):
    return ModelAdvice(tmp_path)


@pytest.fixture
def read(tiny):
    """The lengths of every forward pass of the tiny model."""
    lengths: list[int] = []
    hook = tiny().network.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    yield lengths
    hook.remove()


@pytest.mark.parametrize(
    ("order", "after"),
    [
        ("score", "0123"),
        ("reverse", "3210"),
        ("edges", "0231"),
        ("document", "0123"),
    ],
)
def test_orders_by_score_read_nothing(tiny, advice, read, order, after):
    made = arranged(tiny(), order, advice)
    assert made.ordering.after == tuple(f"p{n}" for n in after)
    assert made.ordering.before == ("p0", "p1", "p2", "p3")
    assert (made.ordering.asked, made.ordering.used, made.ordering.readings) == (order, order, 0)
    assert made.degraded == ()
    assert read == []
    shown = made.prompt.messages[-1].content
    positions = [shown.index(TEXTS[int(name[1:])]) for name in made.ordering.after]
    assert positions == sorted(positions)


@pytest.mark.parametrize("order", ["attention_sorting", "found_in_the_middle"])
def test_attention_orders_put_the_best_passage_where_the_model_reads_best(
    tiny, advice, read, order, tmp_path
):
    stored.write(calibration(tiny(), placement="reverse"), tmp_path)
    made = arranged(tiny(), order, advice)
    scores = made.ordering.scores
    assert made.ordering.readings == 1
    assert made.ordering.seconds > 0
    assert read
    by_attention = sorted(scores, key=lambda name: scores[name]["score"])
    assert list(made.ordering.after) == by_attention
    assert {"retrieved", order, f"{order}.question"} <= set(scores["p0"])
    assert [hit.chunk_id for hit in made.prompt.context.passages] == by_attention
    expected = advice.reranker(order, tiny()).rerank(QUESTION, HITS[::-1])
    assert by_attention == [hit.chunk_id for hit in expected][::-1]


def test_auto_without_a_calibration_puts_the_best_last_and_reads_nothing(tiny, advice, read):
    made = arranged(tiny(), "auto", advice)
    assert (made.ordering.used, made.ordering.after) == ("reverse", ("p3", "p2", "p1", "p0"))
    assert (made.degraded, read) == ((), [])


def test_auto_does_what_the_calibration_found_and_no_useless_reading(tiny, advice, read, tmp_path):
    stored.write(calibration(tiny()), tmp_path)
    assert arranged(tiny(), "auto", advice).ordering.used == "edges"
    assert read == []
    stored.write(calibration(tiny(), auto="found_in_the_middle"), tmp_path)
    made = arranged(tiny(), "auto", ModelAdvice(tmp_path))
    assert (made.ordering.used, made.ordering.readings) == ("found_in_the_middle", 1)
    assert read
    read.clear()
    assert arranged(tiny(), "auto", ModelAdvice(tmp_path), HITS[:1]).ordering.readings == 0
    assert read == []


def test_a_calibration_of_other_weights_is_refused_and_said(tiny, advice, tmp_path):
    model = tiny()
    path = stored.write(calibration(model, revision="0" * 64), tmp_path)
    path.rename(tmp_path / f"{model.revision[:16]}.json")
    made = arranged(model, "auto", advice)
    assert made.ordering.used == "reverse"
    assert "was made for tiny-llama (0000000000000000)" in made.degraded[0]


@dataclass
class Remote:
    """A model behind an interface that gives text and nothing else."""

    inner: Any
    name: str = "remote-model"
    window_tokens: int = 2048
    capabilities: Capabilities = field(default_factory=Capabilities)

    def count_tokens(self, text):
        return self.inner.count_tokens(text)

    def prompt_tokens(self, messages):
        return self.inner.prompt_tokens(messages)


def test_a_remote_model_is_ordered_by_score_and_it_is_said(tiny, advice):
    made = arranged(Remote(tiny()), "found_in_the_middle", advice)
    assert made.ordering.after == ("p3", "p2", "p1", "p0")
    assert len(made.degraded) == 1
    assert "remote-model is not in this process" in made.degraded[0]
    assert arranged(Remote(tiny()), "auto", advice).degraded == ()


def test_a_family_without_support_is_ordered_by_score_and_named(model_folder, tmp_path, advice):
    from pipeline.lm.model import load

    made = arranged(load(str(model_folder("gpt_neox")), cache=tmp_path), "attention_sorting", advice)
    assert made.ordering.used == "reverse"
    assert any("gpt_neox" in note and "llama" in note for note in made.degraded)


def test_without_anyone_to_ask_attention_orders_are_said_to_be_impossible(tiny):
    made = arranged(tiny(), "attention_sorting")
    assert made.ordering.used == "reverse"
    assert "attention_sorting" in made.degraded[0]


def test_passages_that_do_not_fit_are_reported_never_the_question(tiny, advice):
    made = arranged(tiny(), "found_in_the_middle", advice, budget_tokens=20)
    assert QUESTION in made.prompt.messages[-1].content
    assert len(made.prompt.context.passages) + len(made.prompt.context.dropped) >= 4
    assert made.prompt.context.dropped
    assert arranged(tiny(), "auto", advice, max_tokens=2040).prompt is None


def test_without_a_calibration_the_published_form_is_used_and_it_is_said(tiny, advice):
    made = arranged(tiny(), "attention_sorting", advice)
    assert 1 <= made.ordering.readings <= 3
    assert made.degraded == ("tiny-llama is not calibrated: attention_sorting is used as published",)


def test_a_passage_of_no_tokens_is_left_out_and_reported(tiny, advice):
    blank = Hit("blank", "d", 1, "Empty page", " \n\t", 0, 3, 9.0)
    made = arranged(tiny(), "found_in_the_middle", advice, [blank, *HITS])
    assert "blank" not in made.ordering.after
    assert len(made.ordering.after) == 4
    assert any(
        "Empty page" in reason and "there is no text" in reason for reason in made.prompt.context.dropped
    )


def test_cancelling_ends_the_look(tiny, advice):
    with pytest.raises(WorkCancelledError):
        arranged(tiny(), "attention_sorting", advice, cancelled=lambda: True)


def test_an_unknown_order_is_named(tiny):
    with pytest.raises(ConfigurationError, match=r"'sideways'.*found_in_the_middle"):
        arranged(tiny(), "sideways")
