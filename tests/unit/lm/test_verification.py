"""Speculative sampling, against the distributions it must not change."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.lm.sampling import Chooser
from pipeline.lm.verification import Draft, as_long_as, guided, interpolated, overlap, verify
from pipeline.seams import Sampling

V, DRAWS, FEWER = 12, 20_000, 5_000


def distribution(seed: int, sharpness: float = 1.5) -> torch.Tensor:
    return (torch.randn(V, generator=torch.Generator().manual_seed(seed)) * sharpness).softmax(-1)


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Pearson's statistic over the outcomes that are expected at all."""
    at = expected > 0
    assert counts[~at].sum() == 0
    wanted = expected[at] * counts.sum()
    return float(((counts[at] - wanted) ** 2 / wanted).sum())


def critical(degrees: int) -> float:
    """Exceeded with probability .001 by chance (Wilson and Hilferty 1931)."""
    return degrees * (1 - 2 / (9 * degrees) + 3.0902 * math.sqrt(2 / (9 * degrees))) ** 3


def rounds(target, sampling, draft_of, *, after=None, draws=FEWER, **guidance):
    """First tokens of many rounds, how often the drafted one was taken, and second tokens after it."""
    chooser = Chooser(sampling)
    logits = torch.stack([target.log(), (target if after is None else after).log()])
    first, second, taken = torch.zeros(V), torch.zeros(V), 0
    for _ in range(draws):
        tokens = verify(chooser, logits, draft_of(chooser), **guidance)
        first[tokens[0].id] += 1
        taken += tokens[0].mark == "d"
        if len(tokens) == 2:
            second[tokens[1].id] += 1
    return first, second, taken / draws


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1.0, seed=1), Sampling(temperature=0.7, top_p=0.9, top_k=8, seed=2)]
)
def test_sampled_tokens_are_distributed_as_the_targets(sampling):
    """Also after an accepted token; and accepted as often as the distributions overlap."""
    target, after, drafter = distribution(1), distribution(2), distribution(3)
    chooser = Chooser(sampling)
    true, true_after, proposal = (chooser.probabilities(p.log()) for p in (target, after, drafter))

    def draft(chooser):
        return Draft((chooser.draw(proposal),), (proposal,), source="model")

    first, second, taken = rounds(target, sampling, draft, after=after, draws=DRAWS)
    degrees = int((true > 0).sum()) - 1
    assert chi_square(first, true) < critical(degrees)
    assert chi_square(second, true_after) < critical(int((true_after > 0).sum()) - 1)
    expected = overlap(true, proposal)
    assert taken == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / DRAWS))
    assert chi_square(first, proposal + 1e-9) > critical(degrees)  # the test can tell the two apart


@pytest.mark.parametrize("looked_up", [0, 5])
def test_a_looked_up_token_is_accepted_with_its_probability(looked_up):
    target = distribution(1)
    first, _, taken = rounds(target, Sampling(temperature=1, seed=3), lambda _: Draft((looked_up,), (None,)))
    assert chi_square(first, target) < critical(V - 1)
    p = float(target[looked_up])
    assert taken == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / FEWER))


def test_a_token_the_target_excludes_is_never_taken():
    target = distribution(1)
    target[4] = 0
    first, _, taken = rounds(
        target / target.sum(), Sampling(temperature=1, seed=3), lambda _: Draft((4,), (None,))
    )
    assert first[4] == taken == 0


def assert_distributed(p, q, by_hand, **guidance):
    """Tokens of a target ``p`` that a drafter ``q`` guides have the distribution worked out by hand, also
    after an accepted one, and are taken as often as the two overlap, more often than without guidance."""

    def draft(chooser):
        return Draft((chooser.draw(q),), (q,), (q, q), source="model")

    first, second, taken = rounds(p, Sampling(temperature=1, seed=4), draft, **guidance)
    assert chi_square(first, by_hand) < critical(V - 1)
    assert chi_square(second, by_hand) < critical(V - 1)
    assert taken == pytest.approx(overlap(by_hand, q), abs=0.03)
    assert overlap(by_hand, q) > overlap(p, q)
    assert chi_square(first, p) > critical(V - 1)


def test_guided_tokens_are_distributed_as_the_retrieval_augmented_target():
    """Equation by hand: z - eta (p - q) where q reaches a tenth of its maximum."""
    p, q, eta = distribution(1), distribution(3, 2.0), 4.0
    inside = q >= 0.1 * q.max()
    assert 0 < inside.sum() < V
    by_hand = torch.where(inside, p.log() - eta * (p - q), p.log()).softmax(-1)

    assert_distributed(p, q, by_hand, eta=eta)


@pytest.mark.parametrize("most", [0.25, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_interpolated_tokens_are_distributed_as_the_mixture(most, temperature):
    """And drafted ones are taken as often as mixture and drafter overlap, more often than without."""
    z = torch.randn(V, generator=torch.Generator().manual_seed(5))
    p, q = (z / temperature).softmax(-1), distribution(3, 2.0)
    perplexities = [math.exp(-float((each * each.log()).sum())) for each in (p, q)]
    share = most / (1 + math.sqrt(perplexities[1] / perplexities[0]))
    by_hand = (1 - share) * p + share * q
    scores = interpolated(z, q, temperature, most)
    torch.testing.assert_close((scores / temperature).softmax(-1), by_hand)
    assert (by_hand >= (1 - most) * p).all()  # what is promised of a wrong drafter
    if temperature == 1.0:
        assert_distributed(p, q, by_hand, interpolation=most)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_guidance_is_one_step_down_the_distillation_loss(temperature):
    """The shift is eta times the gradient of T^2 KL(q || softmax(z / T)), which autograd knows."""
    z = torch.randn(V, generator=torch.Generator().manual_seed(5)).requires_grad_()
    q = distribution(3)
    loss = temperature**2 * torch.nn.functional.kl_div((z / temperature).log_softmax(-1), q, reduction="sum")
    loss.backward()
    step = guided(z.detach(), q, temperature, eta=3.0, alpha=0.0)
    torch.testing.assert_close(step, z.detach() - 3.0 * z.grad)


def test_a_drafter_that_is_certain_has_its_whole_share_and_one_that_guesses_hardly_any():
    z, certain, guessing = torch.zeros(V), torch.eye(V)[3], torch.full((V,), 1 / V)
    mixed = interpolated(z, certain, 1.0, 0.6).softmax(-1)
    assert float(mixed[3]) == pytest.approx(1 / V + 0.6 / (1 + V**-0.5) * (1 - 1 / V))
    sure = torch.full((V,), -20.0)
    sure[5] = 20.0
    assert float(interpolated(sure, guessing, 1.0, 0.6).softmax(-1)[5]) == pytest.approx(
        1 - 0.6 / (1 + V**0.5) * (1 - 1 / V)
    )


def test_eta_zero_changes_nothing_and_a_large_eta_agrees_with_the_drafter():
    z, q = torch.randn(V, generator=torch.Generator().manual_seed(5)), distribution(3)
    assert torch.equal(guided(z, q, 1.0, 0.0, 0.1), z)
    assert int(guided(z, q, 1.0, 100.0, 0.1).argmax()) == int((q - z.softmax(-1)).argmax())


def test_greedy_tokens_are_those_of_choosing_one_by_one():
    """With a repetition penalty, drafted tokens count as chosen for those behind them."""
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(6, V, generator=generator)
    sampling = Sampling(repetition_penalty=1.7)
    plain = Chooser(sampling)
    one_by_one = [plain.choose(row) for row in logits]
    tokens = verify(Chooser(sampling), logits, Draft(tuple(one_by_one[:5]), (None,) * 5))
    assert [token.id for token in tokens] == one_by_one
    assert "".join(token.mark for token in tokens) == "dddddc"
    wrong = (one_by_one[0], one_by_one[1], (one_by_one[2] + 1) % V, one_by_one[3], one_by_one[4])
    tokens = verify(Chooser(sampling), logits, Draft(wrong, (None,) * 5))
    assert [token.id for token in tokens] == one_by_one[:3]
    assert "".join(token.mark for token in tokens) == "ddc"


def test_without_a_draft_it_is_the_plain_choice():
    logits = torch.randn(1, V, generator=torch.Generator().manual_seed(7))
    sampling = Sampling(temperature=1.3, seed=8)
    assert verify(Chooser(sampling), logits, Draft())[0].id == Chooser(sampling).choose(logits[0])


def test_vocabularies_padded_differently_are_aligned():
    q = distribution(3)
    padded = as_long_as(q, V + 4)
    assert torch.equal(padded[:V], q)
    assert padded[V:].sum() == 0
    torch.testing.assert_close(as_long_as(q, V - 2), q[:-2] / q[:-2].sum())


def test_nan_is_an_error_wherever_it_stands():
    logits = torch.zeros(2, V)
    logits[1, 3] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        verify(Chooser(Sampling()), logits, Draft((0,), (None,)))
