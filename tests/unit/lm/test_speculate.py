"""Speculative answers against plain ones: the same words, the same ends, the same states."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from tiny_networks import LINES, make_network

from pipeline.errors import (
    ConfigurationError,
    InvalidRequestError,
    ModelMemoryError,
    PromptTooLongError,
)
from pipeline.lm import attention
from pipeline.lm import model as lm
from pipeline.lm.kv_cache import roll_back
from pipeline.lm.request import MOST_DRAFT_TOKENS, Generation, Speculation
from pipeline.lm.verification import interpolated
from pipeline.seams import Message, Sampling

FAMILIES = sorted(attention.FAMILIES)
WORDS = " ".join(LINES).split()
GREEDY = Sampling(max_tokens=24)


def prompt(seed: int) -> tuple[list[Message], list[Message]]:
    """A question over a longer text, and over a part of it."""
    chance = random.Random(seed)
    words = chance.choices(WORDS, k=60)
    start = chance.randrange(30)
    asked = " ".join(chance.choices(WORDS, k=5)) + "?"
    long, short = " ".join(words), " ".join(words[start : start + 15])
    return [Message("user", f"{long}\n{asked}")], [Message("user", f"{short}\n{asked}")]


def said(deltas) -> tuple[str, str | None, int]:
    return "".join(d.text for d in deltas), deltas[-1].finish, sum(d.tokens for d in deltas)


def draft(model, seed, speculation, sampling=GREEDY, **options):
    long, short = prompt(seed)
    return list(model.generate(Generation(long, sampling, speculation, short, **options)))


@pytest.fixture(scope="module")
def paired(tiny, model_folder, tmp_path_factory):
    """A function from a family to its tiny model with a drafter of the same family and other weights: the
    target's plus noise, so that it is often right and often wrong."""
    made = {}
    cache = tmp_path_factory.mktemp("cache")

    def model(family: str):
        if family not in made:
            folder = tmp_path_factory.mktemp("drafter")
            network = make_network(family)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.02)
            network.save_pretrained(folder)
            tiny(family).chat._tokenizer.save_pretrained(folder)
            drafter = lm.load(str(folder), cache=cache)
            made[family] = lm.load(str(model_folder(family)), cache=cache, drafter=drafter)
        return made[family]

    return model


def assert_the_same(model, seeds, kinds) -> tuple[int, int]:
    """Greedy answers to these prompts by each kind of speculation equal plain ones. Drafted and accepted."""
    drafted = accepted = 0
    for seed in seeds:
        plain = said(draft(model, seed, Speculation("plain")))
        for kind in kinds:
            deltas = draft(model, seed, kind)
            assert said(deltas) == plain, (seed, kind)
            assert sum(len(d.marks) for d in deltas) == plain[2]
            drafted += deltas[-1].usage["drafted_tokens"]
            accepted += deltas[-1].usage["accepted_tokens"]
    return drafted, accepted


ALWAYS = [
    Speculation("speculative", "lookup"),
    Speculation("speculative", "model", draft_tokens=4),
    Speculation("speculative", "mixture"),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_plain_decoding(paired, family):
    drafted, accepted = assert_the_same(paired(family), range(3), [*ALWAYS, Speculation("auto")])
    assert 0 < accepted < drafted


@pytest.mark.slow
@pytest.mark.timeout(30_000)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_to_a_thousand_prompts(paired, family):
    """Each kind in turn: a thousand prompts for every family."""
    model, drafted, accepted = paired(family), 0, 0
    for n, kind in enumerate([*ALWAYS, Speculation("auto")]):
        counts = assert_the_same(model, range(n * 250, (n + 1) * 250), [kind])
        drafted, accepted = drafted + counts[0], accepted + counts[1]
    assert 0 < accepted < drafted  # both kinds of rounds were seen
    print(f"{family}: 1000 prompts, {drafted} drafted, {accepted / drafted:.2f} accepted")


@pytest.mark.parametrize("answers", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_sampled_answers_have_the_distribution_of_plain_ones(paired, answers):
    """By a two-sample chi-square test over the first two or three characters."""
    model, counts = paired("llama"), {}
    for at, kind in enumerate((Speculation("plain"), Speculation("speculative", "model", draft_tokens=2))):
        for seed in range(answers):
            sampling = Sampling(max_tokens=3, temperature=0.5, top_k=4, seed=seed + 10_000 * at)
            deltas = draft(model, 1, kind, sampling)
            pair = counts.setdefault(said(deltas)[0][:3], [0, 0])
            pair[at] += 1
    common = [pair for pair in counts.values() if sum(pair) >= 20]
    rare = [sum(pair[at] for pair in counts.values() if sum(pair) < 20) for at in (0, 1)]
    table = [pair for pair in [*common, rare] if sum(pair)]
    statistic = sum((a - b) ** 2 / (a + b) for a, b in table)
    assert len(table) >= 3
    assert statistic < (len(table) - 1) + 4 * (2 * (len(table) - 1)) ** 0.5


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("kind", ALWAYS, ids=lambda kind: kind.drafter)
def test_the_states_left_behind_are_those_of_plain_reading(paired, family, kind):
    """Both caches hold exactly what was written, and reading on from them is as from fresh ones."""
    model = paired(family)
    kept = {}
    for name, reader in (("target", model.reader), ("drafter", model._drafting._drafter.reader)):
        keep = reader.keep
        reader.keep = lambda tenant, sequence, name=name, keep=keep: (
            kept.__setitem__(name, sequence),
            keep(tenant, sequence),
        )[1]
    text, _, _ = said(draft(model, 5, kind, tenant=f"states {kind.drafter}"))
    long, short = prompt(5)
    for name, messages, who in (("target", long, model), ("drafter", short, model._drafting._drafter)):
        if name == "drafter" and kind.drafter == "lookup":
            continue
        sequence = kept[name]
        start = len(who.chat.prompt_ids(messages))
        written = model.chat.decode(sequence.ids[start:])
        assert text.startswith(written[:-1].rstrip("\ufffd"))
        assert {layer.get_seq_length() for layer in sequence.cache.layers} == {len(sequence.ids)}
        fresh = who.reader.begin("fresh", sequence.ids, 5)
        fresh.read(sequence.ids)
        for ours, theirs in zip(sequence.cache.layers, fresh.cache.layers, strict=True):
            torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(ours.values, theirs.values, atol=1e-4, rtol=1e-4)
    for reader in (model.reader, model._drafting._drafter.reader):
        del reader.keep


@pytest.mark.parametrize("kind", ALWAYS, ids=lambda kind: kind.drafter)
def test_ends_are_where_plain_decoding_ends(paired, kind):
    model = paired("qwen2")
    for seed in range(4):
        whole = said(draft(model, seed, Speculation("plain")))[0]
        for most in (1, 2, 5):
            deltas = draft(model, seed, kind, Sampling(max_tokens=most))
            assert said(deltas) == said(draft(model, seed, Speculation("plain"), Sampling(max_tokens=most)))
        stop = Sampling(max_tokens=24, stop=(whole[len(whole) // 2 :][:2],))
        assert said(draft(model, seed, kind, stop)) == said(draft(model, seed, Speculation("plain"), stop))


@pytest.mark.parametrize("kind", ALWAYS, ids=lambda kind: kind.drafter)
def test_cancelled_within_a_pass(paired, kind):
    """At every possible moment: no pass begins after ``cancelled`` was first true."""
    model = paired("llama")
    whole = said(draft(model, 2, Speculation("plain")))[0]
    for moment in range(1, 16):
        asked, late = [0], []

        def cancelled(asked=asked, moment=moment) -> bool:
            asked[0] += 1
            return asked[0] >= moment

        def watch(asked=asked, moment=moment, late=late):
            late.append(asked[0] >= moment)

        hooks = [
            each.network.register_forward_pre_hook(lambda *_, watch=watch: watch())
            for each in (model, model._drafting._drafter)
        ]
        deltas = draft(model, 2, kind, tenant=f"{moment} {kind.drafter}", cancelled=cancelled)
        for hook in hooks:
            hook.remove()
        assert deltas[-1].finish == "cancelled"
        assert not any(late)
        assert whole.startswith(said(deltas)[0])
    assert model.engine.writing == 0


def test_requests_at_once_get_the_answers_of_requests_alone(paired):
    model = paired("gemma2")
    kinds = [Speculation("plain"), *ALWAYS]
    alone = [said(draft(model, seed, kinds[seed % 4])) for seed in range(8)]
    together: dict[int, tuple[str, str | None, int]] = {}
    threads = [
        threading.Thread(
            target=lambda seed=seed: together.update({seed: said(draft(model, seed, kinds[seed % 4]))})
        )
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [together[seed] for seed in range(8)] == alone


def test_every_token_says_where_it_comes_from(paired):
    model = paired("llama")
    marks = "".join(d.marks for d in draft(model, 3, ALWAYS[1]))
    usage = draft(model, 3, ALWAYS[1])[-1].usage
    assert set(marks[:-1]) == {"d", "c"}
    assert marks[-1] in "dcp"  # there is nothing to draft where one token is left
    assert usage["decoding"] == "speculative"
    assert usage["draft_rounds"] <= marks.count("c") <= usage["draft_rounds"] + 2
    assert usage["acceptance"] == round(usage["accepted_tokens"] / usage["drafted_tokens"], 4)
    assert {"predicted_gain", "measured_gain"} <= usage.keys()
    assert set("".join(d.marks for d in draft(model, 3, Speculation("plain")))) == {"p"}


def test_text_is_shown_round_by_round(paired):
    model = paired("llama")
    passes = []
    hook = model.network.register_forward_pre_hook(lambda *_: passes.append(1))
    seen = [
        (delta.text, len(passes))
        for delta in model.generate(Generation(prompt(3)[0], GREEDY, ALWAYS[1], prompt(3)[1]))
    ]
    hook.remove()
    shown = [after for text, after in seen if text]
    assert shown == sorted(shown)
    assert shown[0] <= 4
    assert len(set(shown)) > 3


def test_auto_says_why_it_does_not_speculate(paired):
    """The drafter costs as much as the target, so it cannot pay."""
    deltas = draft(paired("llama"), 4, Speculation("auto", "model"))
    assert deltas[-1].usage["decoding"] == "plain"
    assert "times as fast" in deltas[-1].usage["not_speculating"]
    assert set("".join(d.marks for d in deltas)) == {"p"}


def test_auto_takes_what_pays_and_leaves_off_when_it_does_not(paired, monkeypatch, tmp_path):
    """Where checking costs nothing more it drafts; where drafts fail it stops within a few tokens."""
    model = lm.load(str(paired("llama")._located.path), cache=tmp_path)
    monkeypatch.setattr(type(model.reader.costs), "seconds", lambda self, n, m: 1.0 + 0.05 * m)
    long = [Message("user", "the lease ends, the lease ends, the lease ends, the lease ends, the lease")]
    eager = list(model.generate(Generation(long, Sampling(max_tokens=40), Speculation("auto", "lookup"))))
    assert eager[-1].usage["decoding"] == "speculative"
    # Others wait for the same pass: the same drafts are worth less.
    monkeypatch.setattr(type(model.engine), "sharing", 12)
    shared = list(model.generate(Generation(long, Sampling(max_tokens=40), Speculation("auto", "lookup"))))
    assert shared[-1].usage["drafted_tokens"] < eager[-1].usage["drafted_tokens"]
    monkeypatch.undo()
    monkeypatch.setattr(type(model.reader.costs), "seconds", lambda self, n, m: 1.0 + 0.5 * (m - 1))
    model._drafting.__dict__.pop("_acceptance", None)
    wary = list(model.generate(Generation(long, Sampling(max_tokens=200), Speculation("auto", "lookup"))))
    usage = wary[-1].usage
    assert usage["drafted_tokens"] - usage["accepted_tokens"] <= 12


def test_costs_are_kept_for_each_network_and_number_format(paired, tmp_path, monkeypatch):
    from pipeline.lm import step_costs

    monkeypatch.setattr(step_costs, "_STEADY", float("inf"))  # however busy the machine is
    target, drafter = (m._located.path for m in (paired("llama"), paired("llama")._drafting._drafter))
    kept = tmp_path / "cache" / "costs"

    def measured(folder, **options) -> int:
        model = lm.load(str(folder), cache=tmp_path / "cache", **options)
        before = model.engine.passes
        assert model.reader.costs is model.reader.costs
        return model.engine.passes - before

    assert measured(target) > 0 == measured(target)
    assert measured(target, dtype="bfloat16") > 0
    assert measured(target, window_tokens=64) > 0
    assert measured(drafter) > 0 == measured(drafter)
    assert len(list(kept.iterdir())) == 4


def test_costs_that_something_disturbed_are_measured_again(paired, tmp_path, monkeypatch):
    from pipeline.lm import reading, step_costs

    model = lm.load(str(paired("llama")._located.path), cache=tmp_path)
    monkeypatch.setattr(step_costs, "_STEADY", 0.0)
    first = model.reader.costs
    assert first.is_provisional
    assert model.reader.costs is first  # not at once
    monkeypatch.setattr(reading, "_MEASURE_AGAIN_SECONDS", -1.0)
    monkeypatch.setattr(step_costs, "_STEADY", float("inf"))
    with model.engine.writer():
        assert model.reader.costs is first  # nor while somebody writes
    second = model.reader.costs
    assert second is not first
    assert model.reader.costs is second


def test_a_seed_gives_the_same_answer_under_auto(paired, monkeypatch):
    """Whatever the costs say at the moment; so nothing is drafted, and the usage says why."""
    model = paired("llama")
    told = {}
    for each in (0.01, 0.5, 3.0):
        monkeypatch.setattr(type(model.reader.costs), "seconds", lambda self, n, m, each=each: 1.0 + each * m)
        sampling = Sampling(max_tokens=40, temperature=1.0, seed=7)
        deltas = list(model.generate(Generation(prompt(3)[0], sampling, Speculation("auto"), prompt(3)[1])))
        told[said(deltas)[0]] = deltas[-1].usage
    assert len(told) == 1
    assert "a seed was given" in told.popitem()[1]["not_speculating"]


def test_guidance_draws_the_answer_towards_the_drafter(paired):
    """At a large eta the answer is nearer to what the drafter writes by itself from its passages."""
    model = paired("llama")
    drafter = model._drafting._drafter

    def distance(eta: float) -> float:
        total = 0.0
        for seed in range(6):
            text = said(draft(model, seed, Speculation("speculative", "model", eta=eta)))[0]
            scores = drafter.logprob(prompt(seed)[1], text) if text else [0.0]
            total -= sum(scores) / len(scores)
        return total

    assert distance(50.0) < distance(0.0)


def test_interpolated_answers_are_those_of_the_mixture_token_by_token(paired):
    """Against both networks asked afresh for every token."""
    model = paired("llama")
    drafter = model._drafting._drafter
    other = 0
    for seed in range(4):
        prompts = [m.chat.prompt_ids(p) for m, p in zip((model, drafter), prompt(seed), strict=True)]
        written: list[int] = []
        while len(written) < 12:
            with torch.no_grad():
                target, guide = (
                    m.network(torch.tensor([ids + written])).logits[0, -1].float()
                    for m, ids in zip((model, drafter), prompts, strict=True)
                )
            token = int(interpolated(target, guide.softmax(-1), 1.0, 1.0).argmax())
            other += token != int(target.argmax())
            if token in model.chat.end_tokens([]):
                break
            written.append(token)
        kind = Speculation("speculative", "model", interpolation=1.0)
        text = said(draft(model, seed, kind, Sampling(max_tokens=12)))[0]
        halves = "\ufffd "  # a stream does not show half a character at its end
        assert text.strip().rstrip(halves) == model.chat.decode(written).strip().rstrip(halves)
    assert other  # the target alone would have written something else


@pytest.mark.parametrize("guidance", [{"eta": 6.0}, {"interpolation": 0.4}])
def test_mixture_and_model_agree_on_the_guided_answer(paired, guidance):
    """The draft's origin changes nothing: looked-up tokens are guided by the same drafter."""
    model = paired("llama")
    for seed in range(2):
        answers = {
            said(draft(model, seed, Speculation("auto", drafter, draft_tokens=length, **guidance)))
            for drafter in ("model", "mixture")
            for length in (None, 1, 4)
        }
        assert len(answers) == 1


def test_a_second_answer_reads_neither_prompt_again(paired):
    model = paired("llama")
    draft(model, 9, ALWAYS[1], tenant="again")
    passes = []
    hooks = [
        each.network.register_forward_pre_hook(
            lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        for each in (model, model._drafting._drafter)
    ]
    deltas = draft(model, 9, ALWAYS[1], tenant="again")
    for hook in hooks:
        hook.remove()
    assert deltas[-1].usage["cached_prompt_tokens"] > 40
    assert max(passes) <= MOST_DRAFT_TOKENS + 1


def test_without_memory_for_the_drafter_it_decodes_plainly_and_says_so(paired, monkeypatch):
    model = paired("llama")

    def full(*_):
        raise ModelMemoryError("Memory ran out while reading 9 more tokens.")

    monkeypatch.setattr(model._drafting._drafter.reader, "begin", full)
    for kind in (Speculation("speculative", "model"), Speculation("auto", "model", eta=5.0)):
        deltas = draft(model, 1, kind)
        assert said(deltas) == said(draft(model, 1, Speculation("plain")))
        assert "no memory for the drafter" in deltas[-1].degraded[0]
        assert ("without its guidance" in deltas[-1].degraded[0]) == kind.is_guided
        assert deltas[-1].usage["not_speculating"] == "no memory for the drafter"


def test_states_that_cannot_be_rolled_back_are_decoded_plainly(paired, monkeypatch):
    from pipeline.lm.sequence import Sequence

    model = paired("llama")
    monkeypatch.setattr(Sequence, "can_roll_back", property(lambda self: False))
    deltas = draft(model, 1, ALWAYS[0])
    assert said(deltas) == said(draft(model, 1, Speculation("plain")))
    assert "cannot be rolled back" in deltas[-1].degraded[0]


@pytest.mark.parametrize(
    ("speculation", "named"),
    [
        (Speculation("sometimes"), "decoding is 'sometimes'"),
        (Speculation("auto", "oracle"), "drafter is 'oracle'"),
        (Speculation("auto", draft_tokens=0), "draft_tokens is 0"),
        (Speculation("auto", draft_tokens=MOST_DRAFT_TOKENS + 1), "draft_tokens is 17"),
        (Speculation("auto", eta=-1.0), "eta is -1.0"),
        (Speculation("auto", eta=float("nan")), "eta is nan"),
        (Speculation("auto", eta=float("inf")), "eta is inf"),
        (Speculation("auto", alpha=1.5), "alpha is 1.5"),
        (Speculation("auto", "lookup", eta=1.0), "eta is 1.0 .*no distribution of its own"),
        (Speculation("auto", interpolation=-0.1), "interpolation is -0.1"),
        (Speculation("auto", interpolation=1.1), "interpolation is 1.1"),
        (Speculation("auto", interpolation=float("nan")), "interpolation is nan"),
        (
            Speculation("auto", "lookup", interpolation=0.2),
            "interpolation is 0.2 .*no distribution of its own",
        ),
        (Speculation("auto", eta=1.0, interpolation=0.2), "eta is 1.0 and interpolation 0.2"),
    ],
)
def test_senseless_speculation_is_refused_before_any_work(paired, speculation, named):
    model = paired("llama")
    before = model.engine.passes
    with pytest.raises(InvalidRequestError, match=named):
        model.generate(Generation(prompt(1)[0], GREEDY, speculation))
    assert model.engine.passes == before


def test_a_drafter_with_another_vocabulary_is_refused(tiny, model_folder, tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    make_network("llama").save_pretrained(tmp_path)
    other = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=other, unk_token="[UNK]").save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"3 tokens.*another vocabulary than tiny-llama \(400\)"):
        lm.load(str(model_folder("llama")), drafter=lm.load(str(tmp_path)))


def test_a_window_too_small_for_the_draft_is_refused_where_it_must_be_drafted(model_folder, tmp_path):
    drafter = lm.load(str(model_folder("llama")), window_tokens=64)
    model = lm.load(str(model_folder("llama")), drafter=drafter)
    long, short = prompt(1)
    for kind in (Speculation("speculative", "model"), Speculation("auto", eta=1.0)):
        with pytest.raises(PromptTooLongError, match=r"drafter tiny-llama reads 64"):
            model.generate(Generation(long, Sampling(max_tokens=60), kind, short))
    deltas = list(model.generate(Generation(long, Sampling(max_tokens=60), Speculation("auto"), short)))
    assert said(deltas) == said(list(model.generate(Generation(long, Sampling(max_tokens=60)))))


def test_a_drafter_that_is_wrong_on_purpose_changes_nothing_at_eta_zero(paired):
    model = paired("llama")
    wrong = [Message("user", "0123456789 $4,500.00 (four thousand five hundred)")]
    for seed in range(4):
        request = Generation(prompt(seed)[0], GREEDY, ALWAYS[1], wrong)
        assert said(list(model.generate(request))) == said(draft(model, seed, Speculation("plain")))


def test_rolling_back_past_the_beginning_of_a_cache_is_harmless(tiny):
    sequence = tiny().reader.begin("", [1, 2], 10)
    roll_back(sequence.cache, 0)
    sequence.read([1, 2])
    roll_back(sequence.cache, 0)
    assert sequence.cache.get_seq_length() == 0
