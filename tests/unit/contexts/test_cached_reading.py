"""The answer flow's way to cached contexts: modes, what a request may change, and every way back."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "lm"))

from tiny_networks import make_network, make_tokenizer

from pipeline.answer import AnswerConfig
from pipeline.cached_reading import CachedReading
from pipeline.errors import InvalidRequestError, ModelError, WorkCancelledError
from pipeline.lm.context_options import ContextCalibration, ContextOptions, ContextsConfig
from pipeline.lm.request import PLAIN, Speculation
from pipeline.progress import Progress
from pipeline.types import Context, Hit, Query

APE = ContextOptions("ape")
TEXT = "Clause {}. The lease ends in March. The rent is {}0 pounds."
HITS = [Hit(f"c{n}", "lease", 1, "Lease", TEXT.format(n, n), 0, len(TEXT), 1.0 / (n + 1)) for n in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from pipeline.lm.model import load

    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    make_network("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return load(str(folder), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def make(model):
    """A function that makes the way to cached contexts, with settings; closed at the end."""
    from pipeline.lm.contexts import Contexts

    made = []

    def cached(calibration=None, contexts=None, **settings):
        config = ContextsConfig(**{"guard_share": 0.0, **settings})
        reading = CachedReading(contexts or (lambda: Contexts(model, config, None, calibration)), config)
        made.append(reading)
        return reading

    yield cached
    for each in made:
        each.close()


def progress(cancelled=lambda: False):
    return Progress(Query("When does the lease end?", "contracts", "acme"), cancelled)


CONFIG = AnswerConfig(max_tokens=24, max_sentences=5, prompt_passages=3)


def ask(cached, options=APE, hits=HITS, run=None, speculation=PLAIN):
    run = run or progress()
    run.context = options
    sentences = cached.sentences(run, CONFIG, hits, speculation)
    return (None if sentences is None else list(sentences)), run


def test_ape_reads_the_best_passages_from_the_cache_and_says_so(make):
    cached = make()
    _, run = ask(cached)
    assert run.usage["attended_passages"] == 3
    assert run.usage["encoded_tokens"] > 0
    assert run.usage["completion_tokens"] > 0
    assert set(run.attention) == {"c0", "c1", "c2"}
    assert all(0 < mass < 1 for mass in run.attention.values())
    assert run.degraded == []
    assert {"load", "contexts", "first_token", "generate"} <= set(run.timings)
    context = run.finish(Context(tuple(HITS), 9), found=True, mode="composed").context
    assert context.passages[0].scores["attention"] == run.attention["c0"]
    assert "attention" not in context.passages[4].scores


def test_the_same_contexts_serve_the_next_question(model):
    from pipeline.lm.contexts import Contexts

    contexts = Contexts(model)
    cached = CachedReading(lambda: contexts, ContextsConfig(guard_share=0.0))
    first, _ = ask(cached)
    again, run = ask(cached)
    assert again == first
    assert run.usage["cached_tokens"] > 0
    assert run.usage["encoded_tokens"] == 0
    drafted, run = ask(cached, speculation=Speculation("speculative", "lookup"))
    assert drafted == first
    contexts.close()
    cached.close()


@pytest.mark.parametrize("mode", ["sequential", "prefix"])
def test_other_modes_load_nothing(make, mode):
    def never():
        raise AssertionError("loaded")

    cached = make(contexts=never)
    sentences, run = ask(cached, ContextOptions(mode))
    assert sentences is None
    assert run.degraded == []
    assert cached.reuses(ContextOptions(mode)) == (mode == "prefix")


@pytest.mark.parametrize(
    ("loss", "taken"), [((0.01, -0.02, 0.04), True), ((0.01, -0.05, 0.07), False), (None, False)]
)
def test_auto_takes_ape_only_where_its_measured_loss_is_within_the_tolerance(make, model, loss, taken):
    calibration = ContextCalibration(model.name, model.revision, loss_nats=loss)
    sentences, run = ask(make(calibration), ContextOptions("auto"))
    assert (sentences is not None) == taken
    assert run.degraded == []


def test_the_settings_mode_holds_where_a_request_says_nothing(make):
    sentences, _ = ask(make(mode="ape"), ContextOptions())
    assert sentences is not None
    assert ask(make(), ContextOptions())[0] is None


def test_drift_falls_back_and_says_so(make):
    cached = make()
    for _ in range(8):
        cached.guard._differences.append(9.0)
    cached.guard._drifted = True
    sentences, run = ask(cached)
    assert sentences is None
    assert "switched off" in run.degraded[0]


def test_finished_answers_are_compared_with_sequential_reading(make, monkeypatch):
    cached = make(guard_share=1.0)
    offered = []
    monkeypatch.setattr(cached.guard, "offer", offered.append)
    for temperature in (0.3, 0.6, 1.0, 1.5, 2.0, 3.0):
        ask(cached, replace(APE, temperature=temperature))
    assert len(offered) == 6
    for answer in offered:
        both = [answer(sequential=way) for way in (False, True)]
        assert all(score < 0 for score in both)
    monkeypatch.undo()
    for answer in offered:
        assert cached.guard.offer(answer)
        cached.guard.drain()
    assert cached.guard.state().compared == len(offered)
    assert cached.guard.state().failed == 0


def test_a_policy_of_never_uses_only_what_is_there(model):
    from pipeline.lm.contexts import Contexts

    contexts = Contexts(model)
    cached = CachedReading(lambda: contexts, ContextsConfig(build="never"))
    sentences, run = ask(cached)
    assert sentences is None
    assert "contexts.build is never" in run.degraded[0]
    builder = CachedReading(lambda: contexts, ContextsConfig(guard_share=0.0))
    ask(builder, replace(APE, attended=5))
    assert ask(cached)[0] is not None
    for each in (cached, builder):
        each.close()
    contexts.close()


def test_a_model_without_support_reads_sequentially_and_says_so(make):
    def refuse():
        raise ModelError("Reading cached contexts needs attention.", remedy="Use another model.")

    sentences, run = ask(make(contexts=refuse))
    assert sentences is None
    assert "read sequentially: Reading cached contexts needs attention." in run.degraded[0]


def test_too_little_memory_reads_sequentially_and_says_so(make):
    sentences, run = ask(make(memory_bytes=1000))
    assert sentences is None
    assert "memory budget is 1,000" in run.degraded[0]


def test_a_passage_longer_than_the_window_reads_sequentially_and_says_so(make):
    sentences, run = ask(make(), hits=[replace(HITS[0], text="word " * 3000)])
    assert sentences is None
    assert "2,048" in run.degraded[0]


def test_no_hits_are_nobody_s_business(make):
    assert ask(make(), hits=[])[0] is None


def test_cancelled_before_and_while_writing(make):
    cached = make()
    with pytest.raises(WorkCancelledError):
        ask(cached, run=progress(lambda: True))
    calls = iter(range(1000))
    with pytest.raises(WorkCancelledError):
        ask(cached, run=progress(lambda: next(calls) > 20))


def test_senseless_options_are_refused(make):
    with pytest.raises(InvalidRequestError, match="attended is 0"):
        ask(make(), ContextOptions("ape", attended=0))
