"""From a draft and the target's logits to tokens that are distributed as the target's own.

Speculative sampling (Leviathan et al. 2023, algorithm 1; Chen et al. 2023) against the target's
distribution, or against the retrieval-augmented one of RAPID (Chen et al. 2025, Long-Context Inference with
Retrieval-Augmented Speculative Decoding).

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.lm.sampling import Chooser
from pipeline.lm.writing import Token


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that may come next.

    ``proposals`` are the distributions (V,) that each was drawn from, None where it was not drawn but
    looked up, which is a distribution with all of its weight on that token. ``guides`` are the drafter's
    own probabilities (V,) at each position and at the one after the last; empty if it has none. ``passes``
    are those that a language model took to make it.
    """

    tokens: tuple[int, ...] = ()
    proposals: tuple[torch.Tensor | None, ...] = ()
    guides: tuple[torch.Tensor, ...] = ()
    source: str = "lookup"
    match_tokens: int = 0
    passes: int = 0


def verify(
    chooser: Chooser,
    logits: torch.Tensor,
    draft: Draft,
    *,
    eta: float = 0.0,
    alpha: float = 0.1,
    interpolation: float = 0.0,
) -> list[Token]:
    """The draft up to its first rejected token, and one more from the target.

    ``logits`` (n + 1, V) are the target's at each drafted position and after the last. With ``eta``
    and ``interpolation`` 0 the tokens are distributed as if each had been chosen by ``chooser.choose``;
    greedy ones are the same.
    """
    accepted: list[Token] = []
    for at, row in enumerate(logits.float().cpu()):
        scores = chooser.scores(row)
        if eta and draft.guides:
            scores = guided(scores, draft.guides[at], chooser.temperature, eta, alpha)
        if interpolation and draft.guides:
            scores = interpolated(scores, draft.guides[at], chooser.temperature, interpolation)
        proposed = draft.tokens[at] if at < len(draft.tokens) else None
        if chooser.is_greedy:
            token = int(scores.argmax())
        else:
            target = chooser.probabilities(scores)
            proposal = draft.proposals[at] if proposed is not None else None
            token = _speculative_sample(chooser, target, proposed, proposal)
        chooser.note(token)
        accepted.append(Token(token, "d" if token == proposed else "c"))
        if token != proposed:
            return accepted
    return accepted


def guided(
    scores: torch.Tensor, guide: torch.Tensor, temperature: float, eta: float, alpha: float
) -> torch.Tensor:
    """Scores (V,) of the retrieval-augmented target distribution (Chen et al. 2025).

    With target scores ``z``, ``p = softmax(z / T)`` and the drafter's probabilities ``q``, the gradient of
    the distillation loss ``T^2 KL(q || p)`` with respect to ``z`` is ``T (p - q)``; one step of size eta
    against it gives ``z - eta T (p - q)``. It is taken only where ``q >= alpha max(q)``, so that the
    drafter's tail does not move the target.
    """
    target = (scores / temperature).softmax(-1)
    gradient = torch.where(guide >= alpha * guide.max(), target - guide, torch.zeros_like(target))
    return scores - eta * temperature * gradient


def interpolated(scores: torch.Tensor, guide: torch.Tensor, temperature: float, most: float) -> torch.Tensor:
    """Scores (V,) of the distribution ``(1 - w) p + w q``: ``p = softmax(z / T)``, the drafter's ``q``.

    A linear opinion pool (Stone 1961), as language models are interpolated with retrieval since kNN-LM
    (Khandelwal et al. 2020, equation 3), by how certain the two are: ``w = most / (1 + sqrt(exp(H(q)) /
    exp(H(p))))`` is half of ``most`` where their perplexities are equal, and more where the drafter's is
    lower. However wrong the drafter is, no token becomes less likely than ``1 - most`` times what the target
    gives it, which a step of any size ``eta`` does not promise.
    """
    target = (scores / temperature).softmax(-1)
    share = most * torch.sigmoid((_entropy(target) - _entropy(guide)) / 2)
    return temperature * ((1 - share) * target + share * guide).log()


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(probabilities).sum(-1)


def overlap(target: torch.Tensor, proposal: torch.Tensor) -> float:
    """How probable it is that a token drawn from ``proposal`` (V,) is accepted: ``sum min(p, q)``
    (Leviathan et al. 2023, corollary 3.6)."""
    return float(torch.minimum(target, proposal).sum())


def _speculative_sample(
    chooser: Chooser, target: torch.Tensor, proposed: int | None, proposal: torch.Tensor | None
) -> int:
    """A token distributed as ``target`` (V,) which is the proposed one as often as can be.

    ``proposal`` None means that ``proposed`` was certain to be proposed. The residual never lacks weight
    when it is needed: a rejection means that ``proposal`` exceeds ``target`` somewhere.
    """
    if proposed is None:
        return chooser.draw(target)
    certainty = 1.0 if proposal is None else float(proposal[proposed])
    if chooser.chance() * certainty < float(target[proposed]):
        return proposed
    if proposal is None:
        rest = target.clone()
        rest[proposed] = 0
    else:
        rest = (target - proposal).clamp(min=0)
    return chooser.draw(rest) if float(rest.sum()) > 0 else chooser.draw(target)


def as_long_as(probabilities: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Probabilities (V,) over ``vocabulary`` tokens: networks of one tokenizer pad theirs differently."""
    if probabilities.shape[-1] <= vocabulary:
        return torch.nn.functional.pad(probabilities, (0, vocabulary - probabilities.shape[-1]))
    cut = probabilities[..., :vocabulary]
    return cut / cut.sum(-1, keepdim=True)
