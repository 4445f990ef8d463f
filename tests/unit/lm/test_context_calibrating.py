"""Calibration of cached contexts on a tiny model."""

from __future__ import annotations

import pytest

from pipeline.errors import InvalidRequestError
from pipeline.lm import context_calibrating
from pipeline.lm.calibrating import Trial
from pipeline.lm.context_options import ContextOptions, ContextsConfig, settled
from pipeline.lm.contexts import Contexts
from pipeline.types import Hit


def trials(count):
    made = []
    for n in range(count):
        hits = tuple(
            Hit(
                f"c{n}.{k}",
                f"d{n}.{k}",
                1,
                "Lease",
                f"Lease {n}.{k} ends in March 20{n:02}.",
                0,
                9,
                1.0 / (k + 1),
            )
            for k in range(4)
        )
        made.append(Trial(f"When does lease {n} end?", "In March.", hits, 1))
    return made


@pytest.mark.parametrize("heads", [(), ((1, 2), (2, 3))])
def test_the_choice_is_the_best_of_the_grid_and_judged_on_other_questions(tiny, heads, monkeypatch):
    monkeypatch.setattr(context_calibrating, "TEMPERATURES", (0.4, 1.0))
    told = []
    found = context_calibrating.calibrate_contexts(
        tiny(), trials(8), heads=heads, weight=0.7, pairs="test", progress=lambda *at: told.append(at)
    )
    assert (found.questions, found.heads, found.pairs) == (4, heads, "test")
    assert found.weight == (0.7 if heads else 0.0)
    assert found.temperature in (0.4, 1.0)
    assert heads or found.attended is None
    mean, low, high = found.loss_nats
    assert low <= mean <= high
    assert told[-1] == (12, 12)
    contexts = Contexts(tiny(), calibration=found)
    values = settled(ContextsConfig(), ContextOptions(), found)
    losses = []
    for trial in trials(8)[1::2]:
        cached, sequential = context_calibrating._scored(
            contexts, trial, [ContextOptions(None, values.temperature, values.scale, values.attended)],
            also_sequential=True,
        )  # fmt: skip
        losses.append(sequential - cached)
    assert mean == pytest.approx(sum(losses) / 4, abs=1e-4)
    contexts.close()


def test_too_few_questions_are_refused(tiny):
    with pytest.raises(InvalidRequestError, match="7 questions"):
        context_calibrating.calibrate_contexts(tiny(), trials(7), pairs="test")
