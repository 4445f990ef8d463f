"""Several requests in one forward pass, against each alone; whose turn it is; what a failure leaves."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from pipeline.errors import ModelMemoryError
from pipeline.lm import engine as engines
from pipeline.lm.attention import Plan
from pipeline.lm.engine import Engine, Step
from pipeline.lm.kv_cache import new_cache
from pipeline.lm.sequence import Sequence
from pipeline.seams import Message, Sampling

FAMILIES = ["llama", "qwen2", "mistral", "gemma2", "qwen3", "phi3"]


def sequence(model, ids=(), capacity=200, **options) -> Sequence:
    made = Sequence(model.engine, new_cache(model.network.config, capacity), **options)
    if ids:
        made.read(ids)
    return made


def ids(length: int, seed: int) -> list[int]:
    return torch.randint(3, 400, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_pass_equals_each_request_alone(tiny, family):
    """Decoding, verifying and reading prompts together, shorter and longer than a sliding window of 16."""
    model = tiny(family)
    before = [ids(n, seed) for seed, n in enumerate((0, 3, 40, 17, 90))]
    new = [ids(n, seed + 9) for seed, n in enumerate((30, 1, 1, 5, 20))]
    keep = [1, 1, 1, 5, 20]
    alone = [sequence(model, head) for head in before]
    expected = [s.read(tail, k) for s, tail, k in zip(alone, new, keep, strict=True)]
    together = [sequence(model, head) for head in before]
    steps = [Step(s, tail, k) for s, tail, k in zip(together, new, keep, strict=True)]
    engines._packed_pass(model.network, steps)
    for step, logits, mine, theirs in zip(steps, expected, together, alone, strict=True):
        torch.testing.assert_close(step.logits, logits, atol=1e-4, rtol=1e-4)
        for ours, other in zip(mine.cache.layers, theirs.cache.layers, strict=True):
            torch.testing.assert_close(ours.keys, other.keys, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(ours.values, other.values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_rolling_back_is_exact(tiny, family):
    model = tiny(family)
    straight, winding = sequence(model, ids(40, 1)), sequence(model, ids(40, 1))
    kept = [(layer.keys.clone(), layer.values.clone()) for layer in winding.cache.layers]
    winding.read(ids(25, 2))
    winding.roll_back(40)
    assert winding.ids == ids(40, 1)
    for layer, (keys, values) in zip(winding.cache.layers, kept, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert torch.equal(winding.read(ids(7, 3), 7), straight.read(ids(7, 3), 7))


def passes_of(model):
    """The tokens of each forward pass, and a function that ends the counting."""
    seen: list[int] = []
    hook = model.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return seen, hook.remove


def run_together(work) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def test_two_users_stream_in_the_same_passes(tiny, monkeypatch):
    """A step is made to last long enough for the other's next token to arrive meanwhile."""
    model = tiny()
    monkeypatch.setattr(engines, "_MOST_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(engines, "_PATIENCE", 1000)
    prompts = [[Message("user", f"Question {n}?")] for n in range(2)]
    alone = ["".join(d.text for d in model.stream(p, Sampling(max_tokens=30))) for p in prompts]
    seen, remove = passes_of(model)
    texts: dict[int, str] = {}
    ready = threading.Barrier(2)

    def stream(n: int) -> None:
        ready.wait()
        texts[n] = "".join(d.text for d in model.stream(prompts[n], Sampling(max_tokens=30)))

    run_together([lambda: stream(0), lambda: stream(1)])
    remove()
    assert [texts[0], texts[1]] == alone
    assert seen.count(2) >= 20
    assert model.engine.writing == 0


def queue_up(engine, reads):
    """The sequences of each pass, where each read is asked for while the first one's pass is running."""
    passes: list[list[Sequence]] = []
    running, go = threading.Event(), threading.Event()
    run = engine._run

    def held(batch: list[Step]) -> None:
        running.set()
        go.wait(10)
        passes.append([step.sequence for step in batch])
        run(batch)

    engine._run = held
    threads = []
    for n, (each, tokens) in enumerate(reads):
        threads.append(threading.Thread(target=each.read, args=(tokens,)))
        threads[-1].start()
        running.wait(10)
        while len(engine._line) < n:
            time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    return passes


def test_who_shares_a_pass_is_counted(tiny):
    from contextlib import ExitStack

    from pipeline.lm.target import Target

    model = tiny("llama")
    shared, apart = Engine(model.network, packs=True), Engine(model.network)
    mine, planned = (Sequence(shared, new_cache(model.network.config, 8)) for _ in range(2))
    planned.plan = Plan()
    assert (shared.sharing, Target(mine, torch.zeros(1, 8)).others) == (1, 0)
    with ExitStack() as writers:
        for engine in (shared, shared, shared, apart, apart):
            writers.enter_context(engine.writer())
        assert (shared.sharing, apart.sharing) == (3, 1)
        assert Target(mine, torch.zeros(1, 8)).others == 2
        assert Target(planned, torch.zeros(1, 8)).others == 0  # a plan is followed alone
    assert shared.sharing == 1


def test_a_stream_waits_for_one_part_of_a_prompt_at_most(tiny):
    """While a part is read two tokens and two more parts come: the tokens go along with the first of them."""
    model = tiny()
    engine = Engine(model.network, packs=True)
    a, b, c, d, e = (Sequence(engine, new_cache(model.network.config, 200)) for _ in range(5))
    passes = queue_up(engine, [(a, ids(40, 1)), (b, ids(40, 2)), (c, ids(40, 3)), (d, [5]), (e, [6, 7])])
    assert passes == [[a], [b, d, e], [c]]


def test_callers_are_served_in_order_of_arrival(tiny):
    model = tiny()
    engine = Engine(model.network)  # takes nobody along
    sequences = [Sequence(engine, new_cache(model.network.config, 50)) for _ in range(6)]
    assert queue_up(engine, [(each, [5]) for each in sequences]) == [[each] for each in sequences]


def test_a_failing_request_does_not_hurt_those_it_shared_a_pass_with(tiny):
    model = tiny()
    engine = model.engine
    good, bad = sequence(model, ids(20, 1)), sequence(model, ids(20, 2))
    expected = sequence(model, ids(20, 1)).read([7])
    steps = [Step(good, [7], 1), Step(bad, [400_000], 1)]
    engine._run(steps)
    assert steps[0].error is None
    torch.testing.assert_close(steps[0].logits, expected, atol=1e-5, rtol=1e-5)
    assert isinstance(steps[1].error, IndexError)
    assert bad.cache.get_seq_length() == bad.length_tokens == 20
    torch.testing.assert_close(bad.read([8]), sequence(model, ids(20, 2)).read([8]), atol=1e-5, rtol=1e-5)


def test_memory_that_runs_out_is_said_and_nothing_was_read(tiny, monkeypatch):
    model = tiny()
    mine = sequence(model, ids(20, 1))
    layer = mine.cache.layers[-1]

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(layer, "update", full)
    with pytest.raises(ModelMemoryError, match=r"reading 3 more tokens.*can't allocate"):
        mine.read([1, 2, 3])
    monkeypatch.undo()
    assert {each.get_seq_length() for each in mine.cache.layers} == {20} == {mine.length_tokens}
    torch.testing.assert_close(mine.read([8]), sequence(model, ids(20, 1)).read([8]))


def test_a_plan_is_followed_alone_by_the_request_it_belongs_to(tiny):
    model = tiny()
    cool = sequence(model, ids(20, 1), plan=Plan(temperature=0.2))
    plain = sequence(model, ids(20, 1))
    expected = [cool.read([7]), plain.read([7])]
    cool.roll_back(20)
    plain.roll_back(20)
    gathered = []
    with model.engine._guard:
        model.engine._line.extend([Step(plain, [7], 1), Step(cool, [7], 1)])
        lead = model.engine._line[0]
    gathered = model.engine._gather(lead)
    assert [step.sequence for step in gathered] == [plain]
    model.engine._run(gathered)
    rest = model.engine._gather(model.engine._line[0])
    model.engine._run(rest)
    torch.testing.assert_close([rest[0].logits, gathered[0].logits], expected)
    assert (expected[0] - expected[1]).abs().max() > 0.1


def test_an_interrupted_caller_leaves_the_line(tiny, monkeypatch):
    """As Ctrl-C does: whoever waits behind is served all the same."""
    model = tiny()
    engine = Engine(model.network)
    first, second = (Sequence(engine, new_cache(model.network.config, 50)) for _ in range(2))
    engine._led = True
    step = Step(first, [5], 1)
    monkeypatch.setattr(step.woken, "wait", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    engine._line.append(step)
    with pytest.raises(KeyboardInterrupt):
        engine._wait(step)
    assert not engine._line
    engine._hand_over()
    assert second.read([5]).shape == (1, 400)
