"""The decoding loop, against ``generate`` and full forward passes of transformers."""

from __future__ import annotations

import threading

import pytest
import torch

from pipeline.errors import ConfigurationError, InvalidRequestError, ModelError, PromptTooLongError
from pipeline.lm import model as lm
from pipeline.lm import reading
from pipeline.lm.kv_cache import new_cache
from pipeline.seams import LanguageModel, Message, Sampling

FAMILIES = ["llama", "qwen2", "mistral", "gemma2"]
QUESTION = [Message("system", "Answer from the lease."), Message("user", "When does the lease end? " * 6)]


def text_of(deltas) -> str:
    return "".join(delta.text for delta in deltas)


def count_forwards(model):
    """A list that grows by the number of tokens of each forward pass, and a function that ends it."""
    passes: list[int] = []
    network = model._network
    hook = network.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return passes, hook.remove


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate_of_transformers(tiny, tokenizer, family, monkeypatch):
    monkeypatch.setattr(reading, "PREFILL_TOKENS", 7)  # several chunks, the last one shorter
    model = tiny(family)
    deltas = list(model.stream(QUESTION, Sampling(max_tokens=40)))
    prompt = torch.tensor([model._chat.prompt_ids(QUESTION)])
    network = model._network
    whole = network.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40
    )
    ids = whole[0, prompt.shape[1] :].tolist()
    stops = ids[-1] in model._ends
    expected = tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd")
    assert text_of(deltas) == expected
    assert sum(delta.tokens for delta in deltas) == len(ids) - stops
    assert [delta.finish for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish == ("stop" if stops else "length")


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_with_cache_equal_those_of_a_full_pass(tiny, family):
    model = tiny(family)
    ids = model._chat.prompt_ids(QUESTION)
    with torch.inference_mode():
        full = model._network(input_ids=torch.tensor([ids])).logits[0]
    cache, steps, at = model._new_cache(len(ids)), [], 0
    for size in (1, 20, 33, 1, 1, len(ids)):
        chunk = ids[at : at + size]
        steps.append(model._step(chunk, cache, keep=len(chunk)))
        at += len(chunk)
    assert at == len(ids)
    torch.testing.assert_close(torch.cat(steps), full, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("capacity", [1, 10, 500])
def test_reserved_cache_equals_the_concatenating_one(tiny, capacity):
    from transformers import DynamicCache

    model = tiny()
    ids = model._chat.prompt_ids(QUESTION)
    fast, slow = new_cache(model._network.config, capacity), DynamicCache(config=model._network.config)
    for start in range(0, len(ids), 13):
        chunk = ids[start : start + 13]
        torch.testing.assert_close(model._step(chunk, fast), model._step(chunk, slow), atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(fast.layers, slow.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)


def test_reserved_cache_continues_correctly_after_a_crop(tiny):
    model = tiny()
    ids = model._chat.prompt_ids(QUESTION)[:40]
    cache = model._new_cache(60)
    expected = model._step(ids, cache)
    cache.crop(-15)
    torch.testing.assert_close(model._step(ids[-15:], cache), expected, atol=1e-4, rtol=1e-4)


def test_a_model_is_a_language_model(tiny):
    assert isinstance(tiny(), LanguageModel)
    assert tiny().name == "tiny-llama"
    assert tiny().window_tokens == 2048
    described = tiny().describe()
    assert (described["device"], described["dtype"]) == ("cpu", "float32")
    assert described["parameters"] == sum(p.numel() for p in tiny()._network.parameters())


def test_sampling_repeats_with_a_seed_and_differs_without(tiny):
    def answer(seed):
        return text_of(tiny().stream(QUESTION, Sampling(max_tokens=24, temperature=3.0, seed=seed)))

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(5)}) == 5
    assert len({answer(None) for _ in range(5)}) > 1


def test_top_k_of_one_is_greedy(tiny):
    greedy = text_of(tiny().stream(QUESTION, Sampling(max_tokens=20)))
    sampled = text_of(tiny().stream(QUESTION, Sampling(max_tokens=20, temperature=1.5, top_k=1, seed=3)))
    assert greedy == sampled


def test_stop_string_ends_the_text_and_the_work(tiny):
    whole = text_of(tiny().stream(QUESTION, Sampling(max_tokens=30)))
    stop = whole[len(whole) // 2 :][:4]
    passes, remove = count_forwards(tiny())
    deltas = list(tiny().stream(QUESTION, Sampling(max_tokens=30, stop=(stop,))))
    remove()
    assert text_of(deltas) == whole[: whole.index(stop)]
    assert deltas[-1].finish == "stop"
    assert 0 < len(passes) < 30


def test_max_tokens_is_exact_and_costs_no_extra_step(tiny):
    passes, remove = count_forwards(tiny())
    deltas = list(tiny().stream(QUESTION, Sampling(max_tokens=5)))
    remove()
    assert sum(delta.tokens for delta in deltas) == 5
    assert deltas[-1].finish == "length"
    assert len(passes) == 5  # one for the prompt, four for the tokens that were followed by another


def test_every_token_is_shown_when_it_is_chosen(tiny):
    """Streaming means that text comes between steps, not at the end."""
    passes, remove = count_forwards(tiny())
    seen = [(delta.text, len(passes)) for delta in tiny().stream(QUESTION, Sampling(max_tokens=12))]
    remove()
    shown_after = [steps for text, steps in seen if text]
    assert shown_after == sorted(shown_after)
    assert shown_after[0] < 6
    assert len(shown_after) > 3


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_cancelled_within_a_step_while_reading_the_prompt(tiny, monkeypatch, asked):
    monkeypatch.setattr(reading, "PREFILL_TOKENS", 8)
    calls = iter(range(1, 100))
    passes, remove = count_forwards(tiny())
    deltas = list(tiny().stream(QUESTION, Sampling(), lambda: next(calls) >= asked))
    remove()
    assert [(delta.text, delta.finish) for delta in deltas] == [("", "cancelled")]
    assert passes == [8] * (asked - 1)


def test_cancelled_within_a_step_while_writing(tiny):
    stop = threading.Event()
    deltas = []
    passes, remove = count_forwards(tiny())
    for delta in tiny().stream(QUESTION, Sampling(max_tokens=200), stop.is_set):
        deltas.append(delta)
        if len(deltas) == 3:
            stop.set()
            before = len(passes)
    remove()
    assert deltas[-1].finish == "cancelled"
    assert len(passes) == before
    assert text_of(tiny().stream(QUESTION, Sampling(max_tokens=200))).startswith(text_of(deltas))


def test_a_stream_left_halfway_does_not_block_the_next(tiny):
    abandoned = tiny().stream(QUESTION, Sampling(max_tokens=20))
    next(abandoned)
    assert text_of(tiny().stream(QUESTION, Sampling(max_tokens=3)))
    abandoned.close()
    assert not torch.is_inference_mode_enabled()


def test_threads_share_the_model_and_get_the_same_answers_as_alone(tiny, monkeypatch):
    monkeypatch.setattr(reading, "PREFILL_TOKENS", 5)
    model = tiny()
    prompts = [[Message("user", f"Question {n}: " + "why? " * n)] for n in (1, 9, 30)]
    sampling = Sampling(max_tokens=40, temperature=1.2, seed=5)
    alone = [text_of(model.stream(prompt, sampling)) for prompt in prompts]
    together: dict[int, str] = {}
    together_started = threading.Barrier(len(prompts))

    def run(n: int) -> None:
        together_started.wait()
        together[n] = text_of(model.stream(prompts[n], sampling))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(len(prompts))] == alone


def test_prompt_too_long_is_refused_at_the_call_with_both_numbers(model_folder, tmp_path):
    model = lm.load(str(model_folder("llama")), cache=tmp_path, window_tokens=64)
    tokens = model.prompt_tokens(QUESTION)
    passes, remove = count_forwards(model)
    with pytest.raises(PromptTooLongError, match=rf"\b{tokens + 1}\b.*\b64\b"):
        model.stream(QUESTION, Sampling(max_tokens=1))
    with pytest.raises(PromptTooLongError):
        model.logprob([Message("user", "Hi")], "word " * 60)
    remove()
    assert tokens > 64
    assert passes == []


def test_the_answer_ends_where_the_window_ends(model_folder, tmp_path):
    model = lm.load(str(model_folder("llama")), cache=tmp_path, window_tokens=64)
    short = [Message("user", "Hi")]
    deltas = list(model.stream(short, Sampling(max_tokens=500, seed=1, temperature=2.0)))
    if deltas[-1].finish == "length":
        assert sum(delta.tokens for delta in deltas) == 64 - model.prompt_tokens(short)
    full = Message("user", "a " * 64)
    while model.prompt_tokens([full]) > 63:
        full = Message("user", full.content[:-2])
    last = list(model.stream([full], Sampling(max_tokens=500)))
    assert sum(delta.tokens for delta in last) <= 64 - model.prompt_tokens([full])


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_logprob_equals_a_full_pass(tiny, family, monkeypatch):
    model = tiny(family)
    answer = "On the last day of March, 契約 🌲."
    prompt, ids = model._chat.prompt_ids(QUESTION), model._chat.encode(answer)
    with torch.inference_mode():
        logits = model._network(input_ids=torch.tensor([prompt + ids])).logits[0].float()
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    expected = [float(rows[n, token]) for n, token in enumerate(ids)]
    for chunk_tokens in (256, len(prompt), len(prompt) - 1, 9, 1):
        monkeypatch.setattr(reading, "PREFILL_TOKENS", chunk_tokens)
        assert model.logprob(QUESTION, answer) == pytest.approx(expected, abs=1e-4)


def test_logprob_of_nothing_is_refused(tiny):
    with pytest.raises(InvalidRequestError):
        tiny().logprob(QUESTION, "")


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        (Sampling(max_tokens=0), "max_tokens is 0"),
        (Sampling(temperature=-0.1), "temperature is -0.1"),
        (Sampling(top_p=0), "top_p is 0"),
        (Sampling(top_p=1.5), "top_p is 1.5"),
        (Sampling(top_k=-1), "top_k is -1"),
        (Sampling(repetition_penalty=0), "repetition_penalty is 0"),
        (Sampling(temperature=float("nan")), "temperature is nan"),
        (Sampling(stop=("",)), "stop is ''"),
        (Sampling(stop=tuple("abcdefghijklmnopq")), "stop is 17"),
    ],
)
def test_senseless_sampling_is_refused_at_the_call(tiny, sampling, named):
    with pytest.raises(InvalidRequestError, match=named):
        tiny().stream(QUESTION, sampling)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dtype": "int4"}, "int4"),
        ({"device": "abacus"}, "abacus"),
        ({"window_tokens": 4096}, "4,096.*2,048"),
        ({"window_tokens": 0}, "window_tokens is 0"),
    ],
)
def test_wrong_settings_are_named(model_folder, tmp_path, options, named):
    with pytest.raises(ConfigurationError, match=named):
        lm.load(str(model_folder("llama")), cache=tmp_path, **options)


def test_a_model_of_unknown_architecture_is_refused(model_folder, tmp_path):
    import json
    import shutil

    folder = tmp_path / "strange"
    shutil.copytree(model_folder("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "strange"}))
    with pytest.raises(ModelError, match="strange"):
        lm.load(str(folder), cache=tmp_path)


def test_nan_is_an_error_not_an_answer(model_folder, tmp_path):
    model = lm.load(str(model_folder("llama")), cache=tmp_path)
    with torch.no_grad():
        model._network.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        list(model.stream(QUESTION, Sampling()))


def test_importing_the_module_imports_neither_torch_nor_transformers():
    import subprocess
    import sys

    check = "import sys, pipeline.lm.model; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stretched_positions_lengthen_the_window_and_are_the_models_own_method(model_folder, tmp_path):
    """``yarn:4`` equals transformers' YaRN, written into the configuration by hand."""
    import json
    import shutil

    folder = model_folder("llama")
    ours = lm.load(str(folder), cache=tmp_path, positions="yarn:4")
    assert ours.window_tokens == 8192
    assert lm.load(str(folder), cache=tmp_path, positions="ntk", window_tokens=4096).window_tokens == 4096
    stock = tmp_path / "stock"
    shutil.copytree(folder, stock)
    config = json.loads((stock / "config.json").read_text())
    own = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    config["rope_parameters"] = {**config["rope_parameters"], **own}
    (stock / "config.json").write_text(json.dumps(config))
    theirs = lm.load(str(stock), cache=tmp_path)
    plain = lm.load(str(folder), cache=tmp_path)
    scores = [model.logprob(QUESTION, "On the last day of March.") for model in (ours, theirs, plain)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert scores[0] != pytest.approx(scores[2], abs=1e-3)
    with pytest.raises(ConfigurationError, match="exceeds the 4096 positions"):
        lm.load(str(folder), cache=tmp_path, positions="pi:2", window_tokens=5000)
