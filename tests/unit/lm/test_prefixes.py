"""Beginnings of prompts that were read before are not read again, and never across tenants."""

from __future__ import annotations

import threading

import pytest
import torch

from pipeline.lm import model as lm
from pipeline.lm.prefixes import FEWEST_TOKENS, PrefixStore
from pipeline.lm.request import Generation
from pipeline.seams import Message, Sampling

SHARED = "The lease ends on the last day of March, and the tenant returns the keys. " * 4
FIRST = [Message("user", SHARED + "Who returns the keys?")]
SECOND = [Message("user", SHARED + "When does the lease end?")]


@pytest.fixture
def model(model_folder, tmp_path):
    return lm.load(str(model_folder("mistral")), cache=tmp_path)


def ask(model, messages, tenant="default"):
    """Text and usage of an answer, and the tokens that were read for its prompt."""
    seen: list[int] = []
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    deltas = list(model.generate(Generation(messages, Sampling(max_tokens=12), tenant=tenant)))
    hook.remove()
    steps = sum(delta.tokens for delta in deltas) - (deltas[-1].finish != "stop")
    return "".join(delta.text for delta in deltas), deltas[-1].usage, sum(seen) - steps


def test_only_what_is_new_is_read(model, tiny):
    fresh = ask(tiny("mistral"), SECOND)
    _, usage, read = ask(model, FIRST)
    assert (usage["cached_prompt_tokens"], read) == (0, model.prompt_tokens(FIRST))
    text, usage, read = ask(model, SECOND)
    first, second = model.chat.prompt_ids(FIRST), model.chat.prompt_ids(SECOND)
    shared = next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert usage["cached_prompt_tokens"] == shared > 50
    assert read == len(second) - shared
    assert text == fresh[0]


def test_the_same_prompt_reads_one_token(model):
    text, _, _ = ask(model, FIRST)
    again, usage, read = ask(model, FIRST)
    assert (again, read) == (text, 1)
    assert usage["cached_prompt_tokens"] == model.prompt_tokens(FIRST) - 1


def test_a_conversation_goes_on_where_it_stopped(model):
    text, _, _ = ask(model, FIRST)
    longer = [*FIRST, Message("assistant", text), Message("user", "And when?")]
    _, usage, _ = ask(model, longer)
    assert usage["cached_prompt_tokens"] >= model.prompt_tokens(FIRST)


def test_tenants_share_nothing(model):
    ask(model, FIRST, "one")
    _, usage, read = ask(model, FIRST, "other")
    assert (usage["cached_prompt_tokens"], read) == (0, model.prompt_tokens(FIRST))


def test_a_cancelled_answer_leaves_what_it_read(model, monkeypatch):
    from pipeline.lm import reading

    monkeypatch.setattr(reading, "PREFILL_TOKENS", 20)
    calls = iter(range(10))
    list(model.generate(Generation(FIRST, cancelled=lambda: next(calls) == 3)))
    assert ask(model, FIRST)[1]["cached_prompt_tokens"] == 60


def test_many_requests_begin_with_the_same_states_at_once(model):
    ask(model, FIRST)
    questions = [[Message("user", SHARED + f"Question {n}?")] for n in range(4)]
    alone = [ask(model, question)[0] for question in questions]
    texts: dict[int, str] = {}
    threads = [
        threading.Thread(
            target=lambda n=n: texts.update(
                {n: "".join(d.text for d in model.stream(questions[n], Sampling(max_tokens=12)))}
            )
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [texts[n] for n in range(4)] == alone


def test_a_copy_is_exact_and_leaves_the_original_alone(model):
    ids = model.chat.prompt_ids(FIRST)
    first = model.reader.begin("t", ids, 10)
    first.read(ids)
    states = [layer.keys.clone() for layer in first.cache.layers]
    model.reader.keep("t", first)
    copy = model.reader.begin("t", [*ids[:40], 5, 6], 10)
    assert copy.ids == ids[:40]
    copy.read([5, 6, 7])
    for kept, before in zip(first.cache.layers, states, strict=True):
        assert torch.equal(kept.keys, before)
    for ours, theirs in zip(copy.cache.layers, first.cache.layers, strict=True):
        assert torch.equal(ours.keys[:, :, :40], theirs.keys[:, :, :40])


def test_the_budget_holds_and_the_oldest_goes_first(model):
    def cache(seed):
        sequence = model.reader.begin("", [1], 20)
        ids = torch.randint(3, 400, (20,), generator=torch.Generator().manual_seed(seed)).tolist()
        sequence.read(ids)
        return ids, sequence.cache

    (a, cache_a), (b, cache_b), (c, cache_c) = cache(1), cache(2), cache(3)
    size = sum(layer.held_bytes for layer in cache_a.layers)
    store = PrefixStore(2 * size)
    store.keep("t", a, cache_a)
    store.keep("t", b, cache_b)
    assert store.begin("t", [*a, 9], 30)[1] == 20  # used last, so it stays
    store.keep("t", c, cache_c)
    assert store.held_bytes == 2 * size
    assert [store.known_tokens("t", [*ids, 9]) for ids in (a, b, c)] == [20, 0, 20]
    store.keep("t", [*a, 7], cache_a)  # replaces its own beginning
    assert [store.known_tokens("t", [*ids, 9]) for ids in (a, b, c)] == [20, 0, 20]
    tiny_store = PrefixStore(size - 1)
    tiny_store.keep("t", a, cache_a)
    assert tiny_store.held_bytes == 0
    store.clear()
    assert store.begin("t", a, 30) is None


def test_short_beginnings_are_not_worth_a_copy(model):
    sequence = model.reader.begin("", [1], 60)
    ids = list(range(3, 3 + FEWEST_TOKENS + 10))
    sequence.read(ids)
    model.reader.keep("", sequence)
    assert model.reader.known_tokens("", [*ids[: FEWEST_TOKENS - 1], 399, 398]) == 0
    assert model.reader.known_tokens("", [*ids[:FEWEST_TOKENS], 399, 398]) == FEWEST_TOKENS


def test_nothing_is_kept_where_the_budget_is_zero(tiny):
    _, usage, _ = ask(tiny("mistral"), FIRST)
    _, usage, read = ask(tiny("mistral"), FIRST)
    assert (usage["cached_prompt_tokens"], read) == (0, tiny("mistral").prompt_tokens(FIRST))
