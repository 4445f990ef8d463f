"""What drafting is predicted to be worth, against simulation and against costs that are known."""

from __future__ import annotations

import random

import pytest

from pipeline.lm.gains import Acceptance, best_length, expected_tokens
from pipeline.lm.step_costs import StepCosts, measure


def true_cost(context: int, new: int) -> float:
    return 0.05 + 4e-6 * context + (new > 1) * (0.004 + 0.003 * (new - 1) + 2e-6 * context * (new - 1))


@pytest.mark.parametrize(("acceptance", "drafted"), [(0.0, 3), (0.5, 1), (0.8, 4), (0.95, 16), (1.0, 5)])
def test_expected_tokens_are_what_simulation_gives(acceptance, drafted):
    chance = random.Random(1)

    def one() -> int:
        taken = 0
        while taken < drafted and chance.random() < acceptance:
            taken += 1
        return taken + 1

    mean = sum(one() for _ in range(20_000)) / 20_000
    assert expected_tokens(acceptance, drafted) == pytest.approx(mean, rel=0.02)


def test_the_longest_draft_pays_when_checking_is_free_and_none_when_it_costs_as_much():
    free = best_length(0.9, range(9), 1.0, lambda g: 1.0)
    assert (free.draft_tokens, free.gain) == (8, pytest.approx(expected_tokens(0.9, 8)))
    dear = best_length(0.9, range(9), 1.0, lambda g: 1.0 + g)
    assert (dear.draft_tokens, dear.gain) == (0, 1.0)
    some = best_length(0.7, range(17), 1.0, lambda g: 1.0 + 0.15 * g)
    every = [expected_tokens(0.7, g) / (1 + 0.15 * g) for g in range(17)]
    assert some.gain == pytest.approx(max(every))
    assert 0 < some.draft_tokens == every.index(max(every)) < 16


def test_a_draft_is_shorter_where_others_wait_for_the_same_pass():
    """The length is the best for all of them: tokens of everybody for the seconds of the pass."""

    def cost(tokens: int) -> float:
        return 1.0 + 0.1 * tokens

    lengths = []
    for others in (0, 1, 3, 10):
        every = [
            (expected_tokens(0.7, g) + others) / cost(others + 1 + g) * cost(others + 1) / (1 + others)
            for g in range(17)
        ]
        found = best_length(
            0.7, range(17), cost(others + 1), lambda g, others=others: cost(others + 1 + g), others
        )
        assert found.gain == pytest.approx(max(every))
        assert found.draft_tokens == every.index(max(every))
        lengths.append(found.draft_tokens)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_costs_are_found_between_and_beyond_what_was_measured():
    costs = measure(true_cost, [512, 4096])
    for context in (100, 2000, 4096, 32_000):
        for new in (1, 3, 5, 9):
            assert costs.seconds(context, new) == pytest.approx(true_cost(context, new), rel=0.02)


def test_what_one_process_measured_the_next_ones_find(tmp_path):
    file, runs = tmp_path / "costs" / "a.json", []

    def run(context: int, new: int) -> float:
        runs.append((context, new))
        return true_cost(context, new)

    first = measure(run, [512, 4096], file)
    count = len(runs)
    second = measure(run, [512, 4096], file)
    assert len(runs) == count > 0
    assert second.seconds(2000, 3) == first.seconds(2000, 3)
    for damage in (
        "",
        "[[512, 1, 0.1]",
        "[[512, 1, -1]]",
        "[[512, 1, NaN]]",
        "[[512, 1, 0.1]]",
        "{}",
        "null",
        "[[Infinity, 1, 0.1]]",
        f"[[1, 1, 1{400 * '0'}]]",
    ):
        file.write_text(damage)
        assert measure(run, [512, 4096], file).seconds(2000, 3) == first.seconds(2000, 3)
        assert len(runs) == 2 * count  # measured again, and kept again
        measure(run, [512, 4096], file)
        assert len(runs) == 2 * count
        del runs[count:]
    measure(run, [512, 2048], file)  # other passes
    assert len(runs) == 2 * count
    for answers in ([True, False], [False, True]):  # something else ran before, or began meanwhile
        assert measure(run, [512, 4096], tmp_path / "busy.json", iter(answers).__next__).is_provisional
        assert not (tmp_path / "busy.json").exists()
    chance = random.Random(4)  # the machine does something else: no two passes take as long
    measure(lambda n, m: chance.uniform(1, 3) * true_cost(n, m), [512, 4096], tmp_path / "noisy.json")
    assert not (tmp_path / "noisy.json").exists()
    (tmp_path / "a file").write_text("")
    nowhere = measure(run, [512, 4096], tmp_path / "a file" / "b.json")
    assert nowhere.seconds(2000, 3) == first.seconds(2000, 3)


def test_costs_follow_a_machine_that_slows_down():
    costs = measure(true_cost, [512, 4096])
    for _ in range(30):
        costs.learn(2000, 1, 2 * true_cost(2000, 1))
    assert costs.seconds(2000, 1) == pytest.approx(2 * true_cost(2000, 1), rel=0.05)
    # Passes of a kind that was not seen since are expected to have slowed down too.
    assert costs.seconds(2000, 5) == pytest.approx(2 * true_cost(2000, 5), rel=0.05)
    costs.learn(2000, 1, 500.0)  # the machine slept once
    assert costs.seconds(2000, 1) < 3 * true_cost(2000, 1)


def test_costs_that_jump_are_found_where_they_were_measured():
    """As in bfloat16 on matrix units: a second token costs something, those after it hardly anything."""

    def jumping(context: int, new: int) -> float:
        return 0.05 + 3e-6 * context + (new > 1) * (0.01 + 2e-6 * context) + 0.0005 * (new - 1)

    costs = measure(jumping, [512, 4096])
    for context, new in [(512, 1), (2000, 2), (8000, 4), (30_000, 9)]:
        assert costs.seconds(context, new) == pytest.approx(jumping(context, new), rel=0.02)


def test_a_busy_machine_does_not_make_checks_look_dear():
    """Half of the passes take three times as long, and more of the checks than of the plain steps."""
    costs, chance, errors = measure(true_cost, [512, 4096]), random.Random(3), []
    for n in range(400):
        busy = 3.0 if n % 100 < 50 else 1.0
        new = 5 if chance.random() < (0.7 if busy > 1 else 0.3) else 1
        costs.learn(2000, new, busy * chance.uniform(0.95, 1.05) * true_cost(2000, new))
        ratio = costs.seconds(2000, 5) / costs.seconds(2000, 1)
        errors.append(abs(ratio / (true_cost(2000, 5) / true_cost(2000, 1)) - 1))
    assert sum(errors) / len(errors) < 0.08
    assert max(errors) < 0.5  # a plain step and a check on two sides of a change are compared, for a moment


def test_a_wrong_measurement_is_mended_while_running():
    costs = measure(lambda n, m: true_cost(n, m) * (1.5 if m > 1 else 1.0), [512, 4096])
    for _ in range(60):
        for new in (1, 5):
            costs.learn(2000, new, true_cost(2000, new))
    ratio = costs.seconds(2000, 5) / costs.seconds(2000, 1)
    assert ratio == pytest.approx(true_cost(2000, 5) / true_cost(2000, 1), rel=0.05)


def test_noise_never_makes_a_longer_context_cheaper():
    chance = random.Random(2)
    for _ in range(50):
        noisy = {(n, m): true_cost(n, m) * chance.uniform(0.6, 1.7) for n in (10, 80) for m in (1, 2, 4, 8)}
        costs = StepCosts(noisy)
        assert 0 < costs.seconds(100, 1) <= costs.seconds(100_000, 1)
        assert costs.seconds(100_000, 4) <= costs.seconds(100_000, 8)


def test_a_request_learns_faster_than_all_of_them_and_tells_the_others():
    known = Acceptance({"model": 0.8})
    trial = known.trial()
    assert trial.rate("model") == pytest.approx(0.8)
    for _ in range(4):
        trial.observe("model", 4, 0)
    assert trial.rate("model") < 0.25
    for _ in range(200):
        known.observe("model", 4, 2)
    assert known.rate("model") == pytest.approx(2 / 3, abs=0.02)  # of 3 tried in each round
    assert known.trial().rate("never seen") == 0.5
