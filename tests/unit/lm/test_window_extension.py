"""The benchmark of long texts hides its keys where it says, and reads as it would at once."""

from __future__ import annotations

import random

import pytest
import torch

from benchmarks import window_extension as benchmark
from benchmarks.window_extension import SCORED_TOKENS, STRETCH_TOKENS, Hidden
from pipeline.lm.sequence import Sequence


def test_keys_stand_at_their_places_and_never_among_the_scored_tokens():
    lengths = [4000, 8000]
    keys = benchmark._keys(random.Random(3), lengths)
    assert len({key.label for key in keys}) == len(keys) == 8000 // STRETCH_TOKENS
    made = benchmark._with_keys([1] * 50, [2] * 9000, keys, lambda text: [3] * len(text.split()), 8000)
    assert len(made) == 8000
    for key in keys:
        words = len(key.sentence.split())
        assert made[key.at : key.at + words] == [3] * words
        assert made[key.at - 1] == made[key.at + words] == 2
    for length in lengths:
        assert set(made[length - SCORED_TOKENS - 1 : length]) == {2}


def test_a_key_is_right_if_greedy_decoding_writes_it(tiny, monkeypatch):
    """Every digit a token of its own, as the benchmark needs it; the model's own choice is the key."""
    model = tiny()
    monkeypatch.setattr(benchmark, "_encoder", lambda model: lambda text: [3 + ord(c) % 90 for c in text])
    digit_of = {3 + ord(c) % 90: c for c in "0123456789"}

    def asked(digits: str) -> bool:
        read = Sequence(model.engine, model._new_cache(600))
        read.read(list(range(3, 60)))
        return benchmark._is_right(model, read, Hidden("garden", digits, 0))

    found = []

    def choose(self, ids, keep=1):
        logits = torch.full((keep, 400), -1.0)
        for row, token in enumerate([*ids[len(ids) - keep + 1 :], 0][:keep]):
            logits[row, token] = 1.0
        logits[-1, {c: t for t, c in digit_of.items()}["7"]] = 2.0
        found.append(keep)
        return logits

    monkeypatch.setattr(Sequence, "read", choose)
    assert asked("12347")
    assert not asked("12348")
    assert set(found) == {1, 5}


def test_the_report_counts(capsys):
    cell = {"loss": 2.0, "right": {"5": 1, "9": 0}}
    benchmark.report({"native": {"0": {"4000": cell}, "1": {"4000": {**cell, "loss": 4.0}}}})
    printed = capsys.readouterr().out
    assert "20.1" in printed  # e ** 3
    assert "0.50" in printed
    assert "n = 4" in printed


@pytest.mark.parametrize("step", [3, 64])
def test_a_long_text_is_scored_as_it_would_be_at_once(tiny, step, monkeypatch):
    model, ids = tiny(), list(range(3, 103))
    monkeypatch.setattr(benchmark, "CHUNK_TOKENS", step)
    read = Sequence(model.engine, model._new_cache(120))
    benchmark._read(read, ids[:79])
    scores = benchmark._logprobs(read, ids[79:])
    logits = model._step(ids[:-1], model._new_cache(120), 20).float().log_softmax(-1)
    torch.testing.assert_close(scores[:, 0], logits[range(20), ids[80:]], atol=1e-4, rtol=1e-4)
    assert read.length_tokens == 99
